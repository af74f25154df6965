// Package web holds the HTTP manners that the API and the dashboard share:
// request ids, the access log, recovery from panics, error answers after
// RFC 9457, limits of what is read, and answers for wrong routes and methods.
//
// Nothing of a request's path, query, headers or body is logged: they may hold
// tokens and payloads. A log line names the route's pattern instead.
package web

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"
)

// exchange is what is known of the request being answered. It is the request's
// context itself and holds what records the answer, so that a request costs one
// piece of memory for all of it.
type exchange struct {
	context.Context
	answer recorder
	id     [1]string // the only value of its header
	log    *slog.Logger
	route  string
	attrs  []slog.Attr
	some   [4]slog.Attr // the room of attrs, to begin with
	quiet  bool
	known  bool // who asks
	sample *sampler
}

type exchangeKey struct{}

// Value implements [context.Context].
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	if x, ok := ctx.Value(exchangeKey{}).(*exchange); ok {
		return x
	}
	return &exchange{log: slog.New(slog.DiscardHandler)}
}

// RequestID returns the id of the request that ctx belongs to; empty outside of
// a handler that [Wrap] made.
func RequestID(ctx context.Context) string { return exchangeOf(ctx).id[0] }

// Annotate adds attributes to the request's line in the access log. They must
// hold no secret and nothing of a payload. It is for the request's own
// goroutine.
func Annotate(ctx context.Context, attrs ...slog.Attr) {
	x := exchangeOf(ctx)
	x.attrs = append(x.attrs, attrs...)
}

// Quiet has the request's line in the access log written at debug level if it
// succeeds: for what comes thousands of times a second.
func Quiet(ctx context.Context) { exchangeOf(ctx).quiet = true }

// Known says that it is known who asks. Refused requests of those who are not known
// are not all in the access log.
func Known(ctx context.Context) { exchangeOf(ctx).known = true }

// Wrap gives every request an id, an access log line, recovery from panics and
// the headers that every answer carries. A request that is wrapped already goes
// through untouched, so that handlers may be nested.
func Wrap(log *slog.Logger, now func() time.Time, next http.Handler) http.Handler {
	sample := &sampler{log: log}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, ok := r.Context().Value(exchangeKey{}).(*exchange); ok {
			next.ServeHTTP(w, r)
			return
		}
		x := &exchange{Context: r.Context(), answer: recorder{ResponseWriter: w}, id: [1]string{requestID(r)}, log: log, sample: sample}
		x.attrs = x.some[:0]
		x.mark(w.Header())
		r = r.WithContext(x)
		began := now()
		defer func() {
			if v := recover(); v != nil {
				recovered(r, x, v)
			}
			x.access(r, func() time.Duration { return now().Sub(began) })
		}()
		next.ServeHTTP(&x.answer, r)
	})
}

// mark sets the headers that every answer carries. Their values are shared and
// must not be written to.
func (x *exchange) mark(h http.Header) {
	h["X-Request-Id"] = x.id[:]
	h["X-Content-Type-Options"] = nosniff
}

var nosniff = []string{"nosniff"}

// recovered answers a panic with a plain 500. An answer that has begun cannot
// be taken back: the connection is cut, so that the client does not take the
// half for the whole.
func recovered(r *http.Request, x *exchange, v any) {
	rec := &x.answer
	if v != http.ErrAbortHandler {
		x.log.LogAttrs(r.Context(), slog.LevelError, "panic in a request handler",
			slog.String("request_id", x.id[0]), slog.String("route", x.route),
			slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		if rec.status == 0 {
			clear(rec.Header())
			x.mark(rec.Header())
			WriteProblem(rec, r, internalProblem())
			return
		}
	}
	x.access(r, func() time.Duration { return 0 })
	panic(http.ErrAbortHandler)
}

// access writes the request's line, if it is to be written.
func (x *exchange) access(r *http.Request, took func() time.Duration) {
	rec := &x.answer
	level := slog.LevelInfo
	switch {
	case rec.status >= 500:
		level = slog.LevelWarn
	case x.quiet && rec.status < 300:
		level = slog.LevelDebug
	}
	if !x.log.Enabled(r.Context(), level) || x.refused() && x.sample.leaveOut(rec.status) {
		return
	}
	route := x.route
	if route == "" {
		route = "none"
	}
	attrs := append([]slog.Attr{
		slog.String("request_id", x.id[0]),
		slog.String("method", knownMethod(r.Method)),
		slog.String("route", route),
		slog.Int("status", rec.status),
		slog.Float64("duration_ms", float64(took().Microseconds())/1000),
		slog.Int64("bytes", rec.bytes),
	}, x.attrs...)
	x.log.LogAttrs(r.Context(), level, "request", attrs...)
}

// knownMethod keeps what a client made up out of the log.
func knownMethod(m string) string {
	switch m {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPatch, http.MethodPut,
		http.MethodDelete, http.MethodOptions:
		return m
	}
	return "other"
}

// requestID takes over the caller's id when it is short and clean, so that one
// id can follow a request through several services.
func requestID(r *http.Request) string {
	if id := r.Header.Get("X-Request-Id"); cleanID(id) {
		return id
	}
	return "req_" + rand.Text()
}

func cleanID(s string) bool {
	if len(s) == 0 || len(s) > 64 {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
}

func (w *recorder) WriteHeader(status int) {
	if w.status == 0 && status >= 200 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *recorder) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController find what the server's writer can do.
func (w *recorder) Unwrap() http.ResponseWriter { return w.ResponseWriter }
