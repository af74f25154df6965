package store

import (
	"encoding/binary"
	"errors"
	"time"

	"github.com/posthorn/posthorn"
)

// The packed log of a delivery's attempts, as every store keeps it in the
// delivery's row: a version byte, then for each attempt its length as uvarint
// and its fields. Times and durations have microsecond precision. Of more than
// KeptFirst+KeptLast attempts those in the middle are dropped.
const (
	KeptFirst = 10
	KeptLast  = 40

	attemptLogVersion = 1
)

// ErrAttemptLog is returned for bytes that AppendAttempt did not write.
var ErrAttemptLog = errors.New("store: the attempts of this delivery cannot be read")

const (
	flagManual = 1 << iota
	flagTimings
	flagAnswer // status, headers, snippet or note
	flagDetail
)

// AppendAttempt returns log with the attempt added; nil is the empty log. It
// may write into log's spare capacity. RetryAfter is not kept.
func AppendAttempt(log []byte, a *posthorn.Attempt) ([]byte, error) {
	if len(log) == 0 {
		log = append(log, attemptLogVersion)
	}
	log, err := dropMiddle(log)
	if err != nil {
		return nil, err
	}
	entry := appendEntry(nil, a)
	log = binary.AppendUvarint(log, uint64(len(entry)))
	return append(log, entry...), nil
}

// dropMiddle makes room for one more attempt in a full log.
func dropMiddle(log []byte) ([]byte, error) {
	if log[0] != attemptLogVersion {
		return nil, ErrAttemptLog
	}
	n, from, to := 0, 0, 0 // the 11th entry is log[from:to]
	for at := 1; at < len(log); n++ {
		size, w := binary.Uvarint(log[at:])
		if w <= 0 || size > uint64(len(log)-at-w) {
			return nil, ErrAttemptLog
		}
		next := at + w + int(size)
		if n == KeptFirst {
			from, to = at, next
		}
		at = next
	}
	if n < KeptFirst+KeptLast {
		return log, nil
	}
	return append(log[:from], log[to:]...), nil
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
func Attempts(log []byte) ([]posthorn.Attempt, error) {
	if len(log) == 0 {
		return nil, nil
	}
	if log[0] != attemptLogVersion {
		return nil, ErrAttemptLog
	}
	var all []posthorn.Attempt
	r := reader{b: log[1:]}
	for len(r.b) > 0 {
		e := reader{b: r.bytes()}
		a := e.attempt()
		if r.bad || e.bad || len(e.b) > 0 {
			return nil, ErrAttemptLog
		}
		all = append(all, a)
	}
	return all, nil
}

// reader takes fields off b; bad is set at the first that is not there.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) attempt() posthorn.Attempt {
	var a posthorn.Attempt
	flags := r.byte()
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
	if flags&flagAnswer == 0 {
		return a
	}
	a.Status = r.int()
	for range r.count() {
		a.Headers = append(a.Headers, posthorn.Header{Name: string(r.bytes()), Value: string(r.bytes())})
	}
	a.BodyNote = string(r.bytes())
	if s := r.bytes(); len(s) > 0 {
		a.Snippet = append([]byte(nil), s...)
	}
	return a
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
