package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// errTrailing: there is more after the value.
var errTrailing = errors.New("more follows after the end of the JSON value")

// end makes sure that nothing follows.
func (p *parser) end() error {
	at := p.dec.InputOffset()
	_, err := p.dec.ReadToken()
	if err == io.EOF {
		return nil
	}
	return &jsontext.SyntacticError{ByteOffset: at, Err: errTrailing}
}

// malformed makes an error of the syntax one for users. text is what was read,
// beginning at the given line; under is the pointer of what it holds.
func malformed(err error, text []byte, line int, under string) error {
	if e, ok := errors.AsType[*posthorn.Error](err); ok {
		return e
	}
	if err == io.EOF {
		return posthorn.Errorf(posthorn.Malformed, "The body is empty; send the event as JSON.")
	}
	fault := posthorn.Fault{Pointer: under, Detail: err.Error()}
	if e, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		before := text[:min(int(e.ByteOffset), len(text))]
		line += bytes.Count(before, []byte("\n"))
		column := len(before) - bytes.LastIndexByte(before, '\n')
		fault.Pointer = shorten(under + string(e.JSONPointer))
		fault.Detail = fmt.Sprintf("%s at line %d, column %d", syntaxFault(e.Err), line, column)
	}
	return &posthorn.Error{
		Code:    posthorn.Malformed,
		Message: "The body is not valid JSON; errors says where.",
		Faults:  []posthorn.Fault{fault},
	}
}

func syntaxFault(err error) string {
	switch {
	case errors.Is(err, jsontext.ErrDuplicateName):
		return "the name occurs twice in its object,"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "the body ends within a value,"
	}
	return err.Error()
}
