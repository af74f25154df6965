package web

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// ProblemType is the media type of error answers.
const ProblemType = "application/problem+json"

// Problem is an error answer after RFC 9457.
type Problem struct {
	Type      string  `json:"type" doc:"Names the kind of problem; stable."`
	Title     string  `json:"title" doc:"The kind of problem in words."`
	Status    int     `json:"status" doc:"The HTTP status."`
	Detail    string  `json:"detail" doc:"What is wrong and how to mend it."`
	Errors    []Fault `json:"errors" doc:"Everything that is wrong with the body; empty when the fault is elsewhere."`
	RequestID string  `json:"request_id" doc:"Name it when you ask for help; it is in the X-Request-Id header too."`

	retryAfter time.Duration
}

// Fault is one thing wrong with a request's body.
type Fault struct {
	Pointer string `json:"pointer" doc:"JSON pointer (RFC 6901) of the member; empty for the body as a whole."`
	Detail  string `json:"detail" doc:"What is wrong with it."`
}

// Handler answers a request or returns why it cannot.
type Handler func(http.ResponseWriter, *http.Request) error

func (h Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		WriteError(w, r, err)
	}
}

// Status is the HTTP status of a code.
func Status(c posthorn.Code) int {
	switch c {
	case posthorn.Malformed:
		return http.StatusBadRequest
	case posthorn.Unauthorized:
		return http.StatusUnauthorized
	case posthorn.Forbidden:
		return http.StatusForbidden
	case posthorn.NotFound:
		return http.StatusNotFound
	case posthorn.NotAcceptable:
		return http.StatusNotAcceptable
	case posthorn.Conflict:
		return http.StatusConflict
	case posthorn.PreconditionFailed:
		return http.StatusPreconditionFailed
	case posthorn.TooLarge:
		return http.StatusRequestEntityTooLarge
	case posthorn.UnsupportedMedia:
		return http.StatusUnsupportedMediaType
	case posthorn.Invalid:
		return http.StatusUnprocessableEntity
	case posthorn.RateLimited:
		return http.StatusTooManyRequests
	case posthorn.Unavailable:
		return http.StatusServiceUnavailable
	case posthorn.Gone:
		return http.StatusGone
	default:
		return http.StatusInternalServerError
	}
}

// Title says in a few words what a code means.
func Title(c posthorn.Code) string {
	switch c {
	case posthorn.Malformed:
		return "Malformed request"
	case posthorn.Unauthorized:
		return "No valid token"
	case posthorn.Forbidden:
		return "Not allowed"
	case posthorn.NotFound:
		return "Not found"
	case posthorn.NotAcceptable:
		return "No such representation"
	case posthorn.Conflict:
		return "Conflict"
	case posthorn.PreconditionFailed:
		return "Changed in the meantime"
	case posthorn.TooLarge:
		return "Too large"
	case posthorn.UnsupportedMedia:
		return "Unsupported content type"
	case posthorn.Invalid:
		return "Invalid request"
	case posthorn.RateLimited:
		return "Too many requests"
	case posthorn.Unavailable:
		return "Temporarily unavailable"
	case posthorn.Gone:
		return "No longer kept"
	default:
		return "Internal error"
	}
}

// TypeURI names a kind of problem.
func TypeURI(name string) string { return "urn:posthorn:problem:" + name }

func internalProblem() *Problem {
	return &Problem{
		Type: TypeURI(posthorn.Internal.String()), Title: Title(posthorn.Internal), Status: http.StatusInternalServerError,
		Detail: "Something went wrong on our side. Try again; if it stays, ask for help with the request_id.",
	}
}

// ProblemOf turns an error into what a user may see. Of an error that is no
// [posthorn.Error] nothing is shown.
func ProblemOf(err error) *Problem {
	if p, ok := errors.AsType[*Problem](err); ok {
		return p
	}
	e, ok := errors.AsType[*posthorn.Error](err)
	if !ok || e.Code == posthorn.Internal {
		return internalProblem()
	}
	p := &Problem{
		Type: TypeURI(e.Code.String()), Title: Title(e.Code), Status: Status(e.Code), Detail: e.Message,
		retryAfter: e.RetryAfter,
	}
	for _, f := range e.Faults {
		p.Errors = append(p.Errors, Fault(f))
	}
	return p
}

// Error makes a Problem an error, for the few that no [posthorn.Code] stands for.
func (p *Problem) Error() string { return p.Detail }

// WriteError answers with the error as a problem, and logs what is internal.
func WriteError(w http.ResponseWriter, r *http.Request, err error) {
	p := ProblemOf(err)
	if p.Status == http.StatusInternalServerError && !errors.Is(err, context.Canceled) {
		x := exchangeOf(r.Context())
		x.log.LogAttrs(r.Context(), slog.LevelError, "request failed",
			slog.String("request_id", x.id[0]), slog.String("route", x.route), slog.Any("error", err))
	}
	WriteProblem(w, r, p)
}

// WriteProblem answers with the problem. Headers that only make sense beside a
// success are dropped.
func WriteProblem(w http.ResponseWriter, r *http.Request, p *Problem) {
	shown := *p
	shown.RequestID = RequestID(r.Context())
	body, err := json.Marshal(&shown, jsontext.AllowInvalidUTF8(true)) // a detail may quote what came in
	if err != nil {
		panic(err) // a struct of strings always has a JSON form
	}
	h := w.Header()
	for _, name := range []string{"Content-Length", "Etag", "Location", "Link"} {
		h.Del(name)
	}
	switch p.Status {
	case http.StatusUnauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h.Set("WWW-Authenticate", "Bearer")
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		wait := max(1, int(math.Ceil(p.retryAfter.Seconds())))
		h.Set("Retry-After", strconv.Itoa(wait))
	}
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Type", ProblemType)
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client may be gone; nobody is left to tell
}
