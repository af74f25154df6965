package webhook

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"time"
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
//     handled at this moment 409, so that it is sent again later;
//   - where it cannot be remembered that an event is handled, it is not: the answer
//     is 503, with Retry-After if it is known when there is room.
//
// The body is read once, before anything else can change it, and the handler may
// read it again. Its fields are set before first use.
type Receiver struct {
	// Verifier checks the signatures; it is required.
	Verifier *Verifier
	// Seen remembers what was handled; nil for a [Memory] of the handler's own, for each
	// endpoint one. One Seen may serve several receivers: they share no ids unless they
	// share a secret.
	Seen Seen
	// MaxSeen is how many ids the handler's own memory has room for, of each endpoint; 0
	// for [DefaultMaxSeen]. Past it new events are answered 503 until ids are older than
	// twice the tolerance.
	MaxSeen int
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
	takings := rc.takings()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req, status, err := rc.admit(w, r)
		if err != nil {
			rc.refuse(w, r, status, err)
			return
		}
		ids := takings[req.from]
		claim, names, err := ids.take(r.Context(), req)
		switch {
		case err != nil:
			rc.refuse(w, r, notTaken(w, err), err)
		case claim == Fresh:
			rc.handle(func(handled bool) error { return ids.release(r.Context(), names, handled) }, req.event, next, w, r)
		case claim == Handled:
			w.WriteHeader(http.StatusOK)
		default:
			http.Error(w, "this event is being handled", http.StatusConflict)
		}
	})
}

// notTaken is the status for an event that could not be claimed.
func notTaken(w http.ResponseWriter, err error) int {
	if errors.Is(err, ErrTimestamp) {
		return http.StatusUnauthorized
	}
	if full, ok := errors.AsType[*FullError](err); ok && full.After > 0 {
		w.Header().Set("Retry-After", strconv.FormatInt(wholeSeconds(full.After+time.Second-1), 10))
	}
	return http.StatusServiceUnavailable
}

// takings are where the ids of each endpoint are remembered.
func (rc *Receiver) takings() map[*endpoint]*taking {
	all := map[*endpoint]*taking{}
	for _, e := range rc.Verifier.endpoints {
		t := &taking{seen: rc.Seen, verifier: rc.Verifier, shared: true}
		if t.seen == nil {
			t.seen, t.shared = &Memory{Limit: rc.MaxSeen}, false
		}
		all[e] = t
	}
	return all
}

// genuine is a request that was verified.
type genuine struct {
	event *Event
	from  *endpoint
	at    time.Time // its webhook-timestamp
}

// admit reads and verifies. status is what to answer with an error.
func (rc *Receiver) admit(w http.ResponseWriter, r *http.Request) (g genuine, status int, err error) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		return g, http.StatusMethodNotAllowed, errors.New("webhooks come by POST, this is " + r.Method)
	}
	body, status, err := rc.read(w, r)
	if err != nil {
		return g, status, err
	}
	if g.from, g.at, err = rc.Verifier.verify(r.Header, body); err != nil {
		return g, http.StatusUnauthorized, err
	}
	if g.event, err = ParseEvent(r.Header, body); err != nil {
		return g, http.StatusBadRequest, err
	}
	g.event.Endpoint = g.from.name
	return g, 0, nil
}

// read reads the body, and puts it back for the handler.
func (rc *Receiver) read(w http.ResponseWriter, r *http.Request) (body []byte, status int, err error) {
	limit := rc.MaxBody
	if limit <= 0 {
		limit = DefaultMaxBody
	}
	body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return nil, http.StatusRequestEntityTooLarge, err
	}
	if err != nil {
		return nil, http.StatusBadRequest, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return body, 0, nil
}

func (rc *Receiver) refuse(w http.ResponseWriter, r *http.Request, status int, err error) {
	if rc.Refused != nil {
		rc.Refused(r, err)
	}
	http.Error(w, http.StatusText(status), status)
}

func (rc *Receiver) handle(release func(handled bool) error, e *Event, next http.Handler, w http.ResponseWriter, r *http.Request) {
	rec := &recorder{ResponseWriter: w}
	handled := false
	defer func() {
		if err := release(handled); err != nil && rc.Refused != nil {
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
