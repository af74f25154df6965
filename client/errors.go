package client

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
)

// Error is a problem that the server answered with (RFC 9457).
type Error struct {
	// Status is the HTTP status.
	Status int
	// Type, Title and Detail are the problem's. Detail is a sentence for users;
	// it may be empty.
	Type, Title, Detail string
	// Faults are all that is wrong with the request's body.
	Faults []Fault
	// RequestID names the request in the server's logs; empty if the answer had
	// none.
	RequestID string
	// RetryAfter is how long the server asked to wait; 0 if it did not.
	RetryAfter time.Duration
}

// Fault is one thing wrong with a body.
type Fault struct {
	// Pointer is the RFC 6901 JSON pointer of the member, "" for the body itself.
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Error returns the problem's sentence and the faults in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Summary())
	for i, f := range e.Faults {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		if f.Pointer != "" {
			b.WriteString(f.Pointer + ": ")
		}
		b.WriteString(f.Detail)
	}
	return b.String()
}

// Summary is the problem in a sentence, without the faults.
func (e *Error) Summary() string {
	switch {
	case e.Detail != "":
		return e.Detail
	case e.Title != "":
		return e.Title
	}
	return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
}

// UnreachableError says that no whole answer came from the server.
type UnreachableError struct {
	Server string
	Err    error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("%s cannot be reached: %v", e.Server, e.Err)
}

func (e *UnreachableError) Unwrap() error { return e.Err }

// problem makes an Error of an answer, whatever its body is: a proxy in between
// may have sent anything.
func problem(a answer, r request) *Error {
	e := &Error{Status: a.status, RequestID: a.header.Get("X-Request-Id")}
	var p struct {
		Type      string  `json:"type"`
		Title     string  `json:"title"`
		Detail    string  `json:"detail"`
		Errors    []Fault `json:"errors"`
		RequestID string  `json:"request_id"`
	}
	mediaType, _, _ := strings.Cut(a.header.Get("Content-Type"), ";")
	if mediaType == "application/problem+json" && json.Unmarshal(a.body, &p) == nil {
		e.Type, e.Title, e.Detail, e.Faults = p.Type, p.Title, p.Detail, p.Errors
		if p.RequestID != "" {
			e.RequestID = p.RequestID
		}
	} else {
		e.Detail = fmt.Sprintf("%s %s was answered %d %s, not by Posthorn as it seems; is the server's URL right?",
			r.method, basePath+r.path, a.status, http.StatusText(a.status))
	}
	if s, err := strconv.ParseUint(a.header.Get("Retry-After"), 10, 31); err == nil {
		e.RetryAfter = time.Duration(s) * time.Second
	} else if at, err := http.ParseTime(a.header.Get("Retry-After")); err == nil {
		e.RetryAfter = max(time.Until(at), 0)
	}
	return e
}
