package filter

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/cel-go/cel"
)

// Fault is what is wrong with an expression. Line and Column count from 1, in
// characters; 0 for the whole.
type Fault struct {
	Line, Column int
	Detail       string
}

func (f *Fault) Error() string {
	if f.Line == 0 {
		return f.Detail
	}
	return fmt.Sprintf("line %d, column %d: %s", f.Line, f.Column, f.Detail)
}

// maxDetail bounds what is repeated of the compiler's words, in bytes.
const maxDetail = 200

func faultOf(e *cel.Error) error {
	return &Fault{max(e.Location.Line(), 1), max(e.Location.Column()+1, 1), shorten(e.Message)}
}

func asFault(err error) error {
	if f, ok := errors.AsType[*Fault](err); ok {
		return f
	}
	return &Fault{Detail: shorten("does not compile: " + err.Error())}
}

func shorten(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxDetail {
		return strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}
