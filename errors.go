package posthorn

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Error is a fault that a user is told of. Anything that is not an Error is
// internal: it is logged in full and shown as a generic sentence.
type Error struct {
	Code Code
	// Message is a sentence that names the fault and how to mend it. No secret,
	// no address, no text of another system goes into it.
	Message string
	// Faults are all that is wrong with the request's body, in its order.
	Faults []Fault
	// RetryAfter accompanies Unavailable and RateLimited.
	RetryAfter time.Duration
}

// Fault is one thing wrong with a body.
type Fault struct {
	// Pointer is the RFC 6901 JSON pointer of the member, "" for the body itself.
	Pointer string
	Detail  string
}

// Error returns the message and the faults in one line.
func (e *Error) Error() string {
	if len(e.Faults) == 0 {
		return e.Message
	}
	var b strings.Builder
	b.WriteString(e.Message)
	for i, f := range e.Faults {
		sep := "; "
		if i == 0 {
			sep = ": "
		}
		b.WriteString(sep)
		if f.Pointer != "" {
			b.WriteString(f.Pointer + " ")
		}
		b.WriteString(f.Detail)
	}
	return b.String()
}

// Errorf returns an Error with a formatted message.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// ErrorCode returns the code of the first Error in err's tree; Internal when
// there is none.
func ErrorCode(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return Internal
}

// Code is the kind of a fault; the API maps each to one HTTP status.
type Code uint8

const (
	Internal           Code = iota // 500
	Malformed                      // 400: not what the syntax asks for
	Unauthorized                   // 401: no or a bad token
	Forbidden                      // 403: the token does not reach that far
	NotFound                       // 404: unknown, or another tenant's
	NotAcceptable                  // 406
	Conflict                       // 409
	PreconditionFailed             // 412: If-Match
	TooLarge                       // 413
	UnsupportedMedia               // 415
	Invalid                        // 422: well formed, but wrong
	RateLimited                    // 429
	Unavailable                    // 503: not now
	Gone                           // 410: it is no longer kept
	codeEnd
)

var codeNames = [codeEnd]string{
	"internal", "malformed", "unauthorized", "forbidden", "not_found", "not_acceptable", "conflict",
	"precondition_failed", "too_large", "unsupported_media", "invalid", "rate_limited", "unavailable", "gone",
}

// String returns the code's name.
func (c Code) String() string {
	if c < codeEnd {
		return codeNames[c]
	}
	return fmt.Sprintf("code(%d)", uint8(c))
}

// Codes returns all codes, in order.
func Codes() []Code {
	all := make([]Code, codeEnd)
	for i := range all {
		all[i] = Code(i)
	}
	return all
}
