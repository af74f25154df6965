package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
)

// DefaultMaxBody bounds the bodies that a [Receiver] reads. Posthorn's are at most
// 256 KiB and their envelope.
const DefaultMaxBody = 1 << 20

// Receiver is what stands before the handler of webhooks. It lets through only
// genuine requests that were not handled before:
//
//   - anything but POST is answered 405;
//   - a body over MaxBody is answered 413, one that breaks off 400;
//   - what Verify refuses is answered 401, the same for every cause;
//   - a signed body that is no event is answered 400;
//   - an event that was handled before is answered 200, and one that is being
//     handled at this moment 409, so that it is sent again later.
//
// The body is read once, before anything else can change it, and the handler may
// read it again. Its fields are set before first use.
type Receiver struct {
	// Verifier checks the signatures; it is required.
	Verifier *Verifier
	// Seen remembers what was handled; nil for a [Memory] of the handler's own.
	Seen Seen
	// MaxBody bounds what is read of a body, in bytes; 0 for [DefaultMaxBody].
	MaxBody int64
	// Refused is told why a request was not let through, to log it; nil for
	// nobody. The error names the cause and holds nothing secret; a repeated event
	// is none.
	Refused func(r *http.Request, err error)
}

// Handler wraps next, which finds the event by [FromContext].
//
// An event counts as handled when next answered 2xx (or wrote nothing). After any
// other answer or a panic it is not remembered, so that it is handled when it is
// sent again. That holds also when the sender gave up waiting meanwhile.
func (rc *Receiver) Handler(next http.Handler) http.Handler {
	if rc.Verifier == nil {
		panic("webhook: the Receiver has no Verifier")
	}
	seen := rc.Seen
	if seen == nil {
		seen = &Memory{}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e, status, err := rc.admit(w, r)
		if err != nil {
			rc.refuse(w, r, status, err)
			return
		}
		claim, err := seen.Claim(r.Context(), e.ID)
		if err != nil {
			rc.refuse(w, r, http.StatusServiceUnavailable, err)
			return
		}
		switch claim {
		case Handled:
			w.WriteHeader(http.StatusOK)
		case Busy:
			http.Error(w, "this event is being handled", http.StatusConflict)
		default:
			rc.handle(seen, e, next, w, r)
		}
	})
}

// admit reads and verifies. status is what to answer with an error.
func (rc *Receiver) admit(w http.ResponseWriter, r *http.Request) (e *Event, status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return nil, http.StatusMethodNotAllowed, errors.New("webhooks come by POST, this is " + r.Method)
	}
	limit := rc.MaxBody
	if limit <= 0 {
		limit = DefaultMaxBody
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, http.StatusRequestEntityTooLarge, err
		}
		return nil, http.StatusBadRequest, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	if err := rc.Verifier.Verify(r.Header, body); err != nil {
		return nil, http.StatusUnauthorized, err
	}
	if e, err = ParseEvent(r.Header, body); err != nil {
		return nil, http.StatusBadRequest, err
	}
	return e, 0, nil
}

func (rc *Receiver) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	if rc.Refused != nil {
		rc.Refused(r, err)
	}
	http.Error(w, http.StatusText(status), status)
}

func (rc *Receiver) handle(seen Seen, e *Event, next http.Handler, w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	handled := false
	defer func() {
		// The sender may have gone: what was done was done all the same.
		if err := seen.Release(context.WithoutCancel(r.Context()), e.ID, handled); err != nil && rc.Refused != nil {
			rc.Refused(r, err)
		}
	}()
	next.ServeHTTP(rec, r.WithContext(context.WithValue(r.Context(), eventKey{}, e)))
	handled = rec.status == 0 || rec.status >= 200 && rec.status <= 299
}

// recorder notes the status of the final answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && (status >= 200 || status == 101) {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap is for [http.ResponseController].
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
