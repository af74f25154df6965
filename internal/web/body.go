package web

import (
	"bytes"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
)

// keptBuffer is the largest buffer that goes back into the pool: a single batch
// must not pin 8 MiB for good.
const keptBuffer = 1 << 20

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

// ReadBody reads a request's body of at most limit bytes. The bytes belong to
// the pool again once release is called; nothing may keep them. room bounds what
// requests hold at the same time, who says whom it is for; nil for no bound.
func ReadBody(r *http.Request, limit int64, room *share.Pool, who share.Party) (body []byte, release func(), err error) {
	if r.ContentLength > limit {
		return nil, nil, tooLarge(limit)
	}
	buf := buffers.Get().(*bytes.Buffer)
	held := &held{room: room, who: who}
	release = func() {
		held.give()
		if buf.Cap() <= keptBuffer {
			buf.Reset()
			buffers.Put(buf)
		}
	}
	if err = readInto(buf, r, limit, held); err != nil {
		release()
		return nil, nil, err
	}
	return buf.Bytes(), release, nil
}

func readInto(buf *bytes.Buffer, r *http.Request, limit int64, held *held) error {
	if r.ContentLength >= 0 {
		return readKnown(buf, r, held)
	}
	from := io.LimitReader(r.Body, limit+1)
	for { // of unknown length: it is counted as it comes
		if err := held.upTo(min(limit, int64(buf.Len())+roomStep)); err != nil {
			return err
		}
		n, err := buf.ReadFrom(io.LimitReader(from, roomStep))
		switch {
		case err != nil:
			return brokenOff()
		case int64(buf.Len()) > limit:
			return tooLarge(limit)
		case n < roomStep:
			return nil
		}
	}
}

// readKnown reads a body that says how long it is. The server ends it there.
func readKnown(buf *bytes.Buffer, r *http.Request, held *held) error {
	if err := held.upTo(r.ContentLength); err != nil {
		return err
	}
	buf.Grow(int(r.ContentLength))
	body := buf.AvailableBuffer()[:r.ContentLength]
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return brokenOff()
	}
	buf.Write(body) // which is there already
	return nil
}

func brokenOff() error {
	return posthorn.Errorf(posthorn.Malformed, "The body broke off before its end; send it again.")
}

func tooLarge(limit int64) error {
	return posthorn.Errorf(posthorn.TooLarge, "The body is larger than %s, which is the limit here.", size(limit))
}

func size(n int64) string {
	switch {
	case n%(1<<20) == 0:
		return strconv.FormatInt(n>>20, 10) + " MiB"
	case n%(1<<10) == 0:
		return strconv.FormatInt(n>>10, 10) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

// ContentType checks that the body comes in one of the types, and returns
// which. Parameters and case count for nothing, but a charset must be UTF-8. A
// compressed body is refused.
func ContentType(r *http.Request, types ...string) (string, error) {
	for _, e := range r.Header["Content-Encoding"] { // a list
		if e != "" && !strings.EqualFold(e, "identity") {
			return "", posthorn.Errorf(posthorn.UnsupportedMedia, "A body with a Content-Encoding is not taken; send it uncompressed.")
		}
	}
	raw := r.Header.Get("Content-Type")
	for _, t := range types { // no parsing for what nearly everybody sends
		if raw == t {
			return t, nil
		}
	}
	got, params, err := mime.ParseMediaType(raw)
	if err == nil {
		for _, t := range types {
			if got != t {
				continue
			}
			if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
				return "", posthorn.Errorf(posthorn.UnsupportedMedia, "JSON is UTF-8; send the body without another charset.")
			}
			return t, nil
		}
	}
	return "", posthorn.Errorf(posthorn.UnsupportedMedia, "Send the body with Content-Type: %s.", strings.Join(types, " or "))
}

// Accepts checks that the client takes the media type, after RFC 9110 section
// 12.5.1. No Accept header takes everything.
func Accepts(r *http.Request, mediaType string) error {
	values := r.Header["Accept"]
	if len(values) == 0 {
		return nil
	}
	major, _, _ := strings.Cut(mediaType, "/")
	best, taken := 0, true // how exact the range is that decided
	matched := false
	for _, line := range values {
		for part := range strings.SplitSeq(line, ",") {
			rng, params, _ := strings.Cut(part, ";")
			rng = strings.ToLower(strings.TrimSpace(rng))
			exact := 0
			switch rng {
			case mediaType:
				exact = 3
			case major + "/*":
				exact = 2
			case "*/*":
				exact = 1
			case "":
				if strings.TrimSpace(line) == "" {
					return nil
				}
			}
			if exact > best {
				best, taken, matched = exact, !zeroQuality(params), true
			}
		}
	}
	if matched && taken {
		return nil
	}
	return posthorn.Errorf(posthorn.NotAcceptable, "The answer comes as %s only; send Accept: %s or none.", mediaType, mediaType)
}

func zeroQuality(params string) bool {
	for p := range strings.SplitSeq(params, ";") {
		name, value, ok := strings.Cut(strings.TrimSpace(p), "=")
		if ok && strings.EqualFold(name, "q") {
			q, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			return err == nil && q == 0
		}
	}
	return false
}

// typeJSON is a header's value that answers share: it must not be written to.
var typeJSON = []string{"application/json"}

// WriteJSON answers with a body that is JSON already.
func WriteJSON(w http.ResponseWriter, status int, body []byte) {
	h := w.Header()
	h["Content-Type"] = typeJSON
	h["Content-Length"] = []string{strconv.Itoa(len(body))}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone; nobody is left to tell
}
