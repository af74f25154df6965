package store

import (
	"cmp"
	"encoding/binary"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

// The packed log of a delivery's attempts, as every store keeps it in the
// delivery's row: a version byte, then for each attempt its length as uvarint
// and its fields. Times and durations have microsecond precision. Of more than
// KeptFirst+KeptLast attempts those in the middle are dropped.
//
// Nodes of several versions read and write one log, so that these rules hold for
// good:
//
//   - Version byte and lengths stay as they are. A later version adds fields, and
//     only at the end of an entry; a new bit of the flags announces such fields and
//     nothing else.
//   - Readers skip what follows the fields that they know, and bits and classes
//     that they do not. Writers copy the entries of others byte by byte.
//   - The version byte is that of the newest version that wrote to the log. It is
//     never lowered, and tells nothing of a single entry.
//   - What is added repeats nothing that a receiver answered: an older version
//     could not erase it.
//
// What cannot be said within them goes into another column.
const (
	KeptFirst = 10
	KeptLast  = 40

	attemptLogVersion = 1
)

// ErrAttemptLog is returned for bytes that no AppendAttempt wrote, of this version
// or a later one.
var ErrAttemptLog = errors.New("store: the attempts of this delivery cannot be read")

const (
	flagManual = 1 << iota
	flagTimings
	flagAnswer // status, headers, snippet or note
	flagDetail
)

// AppendAttempt returns log with the attempt added; nil is the empty log. It may
// change log, which is not to be used afterwards. RetryAfter is not kept.
//
// Of a broken log what is whole is kept and the rest dropped: then err is
// [ErrAttemptLog], and the log that is returned good all the same. A result that
// could not be recorded would be repeated for ever.
func AppendAttempt(log []byte, a *posthorn.Attempt) (_ []byte, err error) {
	log, err = makeRoom(log)
	entry := appendEntry(nil, a)
	log = binary.AppendUvarint(log, uint64(len(entry)))
	return append(log, entry...), err
}

// makeRoom drops one attempt of the middle when the log is full.
func makeRoom(log []byte) (_ []byte, err error) {
	if len(log) == 0 {
		return append(log, attemptLogVersion), nil
	}
	if log[0] < attemptLogVersion {
		return append(log[:0], attemptLogVersion), ErrAttemptLog
	}
	n, from, to := 0, 0, 0 // the 11th entry is log[from:to]
	for at := 1; at < len(log); n++ {
		_, next, ok := entryAt(log, at)
		if !ok {
			log, err = log[:at], ErrAttemptLog
			break
		}
		if n == KeptFirst {
			from, to = at, next
		}
		at = next
	}
	if n < KeptFirst+KeptLast {
		return log, err
	}
	return append(log[:from], log[to:]...), err
}

// entryAt finds the entry at a place of the log: its fields are log[fields:next].
func entryAt(log []byte, at int) (fields, next int, ok bool) {
	size, n := binary.Uvarint(log[at:])
	if n <= 0 || size > uint64(len(log)-at-n) {
		return 0, 0, false
	}
	return at + n, at + n + int(size), true
}

func appendEntry(b []byte, a *posthorn.Attempt) []byte {
	var flags byte
	if a.Manual {
		flags |= flagManual
	}
	if a.Timings != (posthorn.Timings{}) {
		flags |= flagTimings
	}
	if a.Status != 0 || len(a.Headers) > 0 || len(a.Snippet) > 0 || a.BodyNote != "" {
		flags |= flagAnswer
	}
	if a.Detail != "" {
		flags |= flagDetail
	}
	b = append(b, flags, byte(a.Class))
	b = binary.AppendUvarint(b, uint64(max(a.Number, 0)))
	b = binary.AppendVarint(b, a.At.UnixMicro())
	b = appendDuration(b, a.Duration)
	if flags&flagTimings != 0 {
		b = appendDuration(b, a.Timings.DNS)
		b = appendDuration(b, a.Timings.Connect)
		b = appendDuration(b, a.Timings.TLS)
		b = appendDuration(b, a.Timings.FirstByte)
	}
	if flags&flagDetail != 0 {
		b = appendText(b, a.Detail)
	}
	if flags&flagAnswer == 0 {
		return b
	}
	b = binary.AppendUvarint(b, uint64(max(a.Status, 0)))
	b = binary.AppendUvarint(b, uint64(len(a.Headers)))
	for _, h := range a.Headers {
		b = appendText(appendText(b, h.Name), h.Value)
	}
	b = appendText(b, a.BodyNote)
	return appendText(b, a.Snippet)
}

func appendDuration(b []byte, d time.Duration) []byte {
	return binary.AppendVarint(b, d.Microseconds())
}

func appendText[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// Attempts unpacks a log, oldest first. The attempts share no memory with it.
func Attempts(log []byte) (all []posthorn.Attempt, err error) { return AttemptsCut(log, 0) }

// AttemptsCut is Attempts with at most so many bytes of each answer's body, and a
// BodyNote where there was more; 0 for all.
func AttemptsCut(log []byte, snippet int) (all []posthorn.Attempt, err error) {
	if len(log) == 0 {
		return nil, nil
	}
	if log[0] < attemptLogVersion {
		return nil, ErrAttemptLog
	}
	for at := 1; at < len(log); {
		fields, next, ok := entryAt(log, at)
		if !ok {
			return nil, ErrAttemptLog
		}
		e := reader{b: log[fields:next], snippet: snippet}
		a := e.attempt()
		if e.bad {
			return nil, ErrAttemptLog
		}
		all = append(all, a)
		at = next
	}
	return all, nil
}

// LastEnded is when the last attempt of a log ended; zero when there is none, or the
// log is broken.
func LastEnded(log []byte) time.Time {
	all, err := Attempts(log)
	if err != nil || len(all) == 0 {
		return time.Time{}
	}
	last := &all[len(all)-1]
	return last.At.Add(last.Duration)
}

// EraseAnswers takes what receivers answered, but for the status, out of a
// delivery's log of attempts. It changes nothing else; what cannot be read is
// dropped, as it may be an answer.
func EraseAnswers(log []byte) []byte {
	if len(log) == 0 || log[0] < attemptLogVersion {
		return nil
	}
	clean := log[:1:1]
	for at := 1; at < len(log); {
		fields, next, ok := entryAt(log, at)
		if !ok {
			break
		}
		if e, ok := withoutAnswer(log[fields:next]); ok {
			clean = append(binary.AppendUvarint(clean, uint64(len(e))), e...)
		}
		at = next
	}
	return clean
}

// withoutAnswer is an entry of which the status alone is left of the answer.
func withoutAnswer(entry []byte) (clean []byte, ok bool) {
	r := reader{b: entry}
	var a posthorn.Attempt
	if flags := r.head(&a); flags&flagAnswer == 0 {
		return entry, !r.bad
	}
	clean = append(clean, entry[:len(entry)-len(r.b)]...)
	r.answer(&a)
	clean = binary.AppendUvarint(clean, uint64(a.Status))
	clean = append(clean, 0, 0, 0) // no headers, no note, no snippet
	return append(clean, r.b...), !r.bad
}

// reader takes fields off b; bad is set at the first that is not there.
type reader struct {
	b       []byte
	bad     bool
	snippet int // how much of an answer's body is read; 0 for all
}

// attempt reads what is known of an entry; what follows is left.
func (r *reader) attempt() (a posthorn.Attempt) {
	if flags := r.head(&a); flags&flagAnswer != 0 {
		r.answer(&a)
	}
	return a
}

// head reads what stands before the answer.
func (r *reader) head(a *posthorn.Attempt) (flags byte) {
	flags = r.byte()
	a.Class = posthorn.Class(r.byte())
	a.Manual = flags&flagManual != 0
	a.Number = r.int()
	a.At = time.UnixMicro(r.varint()).UTC()
	a.Duration = r.duration()
	if flags&flagTimings != 0 {
		a.Timings = posthorn.Timings{DNS: r.duration(), Connect: r.duration(), TLS: r.duration(), FirstByte: r.duration()}
	}
	if flags&flagDetail != 0 {
		a.Detail = string(r.bytes())
	}
	return flags
}

func (r *reader) answer(a *posthorn.Attempt) {
	a.Status = r.int()
	for range r.count() {
		a.Headers = append(a.Headers, posthorn.Header{Name: string(r.bytes()), Value: string(r.bytes())})
	}
	a.BodyNote = string(r.bytes())
	s := r.bytes()
	if n := r.snippet; n > 0 && len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s, a.BodyNote = s[:n], cmp.Or(a.BodyNote, "truncated")
	}
	if len(s) > 0 {
		a.Snippet = append([]byte(nil), s...)
	}
}

func (r *reader) fail() { r.b, r.bad = nil, true }

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) int() int {
	v := r.uvarint()
	if v > 1<<31 {
		r.fail()
		return 0
	}
	return int(v)
}

// count is a number of things that take at least a byte each.
func (r *reader) count() int {
	v := r.uvarint()
	if v > uint64(len(r.b)) {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) bytes() []byte {
	n := r.count()
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) duration() time.Duration {
	v := r.varint()
	if v > int64(1<<63-1)/1000 || v < -int64(1<<63-1)/1000 {
		r.fail()
		return 0
	}
	return time.Duration(v) * time.Microsecond
}
