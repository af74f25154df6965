package api

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// maxDepth bounds the nesting of bodies.
const maxDepth = 100

// field is a member of a request body. It tells an absent member from null and
// both from a value. Structs of fields are what the OpenAPI document shows and
// what [decode] reads, so that the two agree.
type field[T any] struct {
	Set  bool
	Null bool
	V    T
}

// member is a field of any type.
type member interface {
	take(v jsontext.Value, at jsontext.Pointer) []posthorn.Fault
	state() (set, null bool)
}

// Schema is the schema of the member's value.
func (f field[T]) Schema(r huma.Registry) *huma.Schema {
	return r.Schema(reflect.TypeFor[T](), true, "")
}

func (f *field[T]) state() (set, null bool) { return f.Set, f.Null }

// take reads the value and returns what is wrong with its type.
func (f *field[T]) take(v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	f.Set = true
	if v.Kind() == 'n' {
		f.Null = true
		return nil
	}
	switch to := any(&f.V).(type) {
	case *string:
		return takeString(to, v, at)
	case *[]string:
		return takeStrings(to, v, at)
	case *time.Time:
		return takeTime(to, v, at)
	case *int64:
		return takeInt(to, v, at)
	case *[]int64:
		return takeInts(to, v, at)
	case *float64:
		return takeFloat(to, v, at)
	case *bool:
		return takeBool(to, v, at)
	case *headerPatch:
		return takeHeaders(to, v, at)
	}
	panic(fmt.Sprintf("api: no decoder for members of type %T", f.V))
}

func wrongKind(v jsontext.Value, at jsontext.Pointer, want string) []posthorn.Fault {
	return []posthorn.Fault{{Pointer: string(at), Detail: "must be " + want + ", not " + kindName(v.Kind())}}
}

func kindName(k jsontext.Kind) string {
	switch k {
	case 'n':
		return "null"
	case 't', 'f':
		return "a boolean"
	case '"':
		return "a string"
	case '0':
		return "a number"
	case '[':
		return "an array"
	default:
		return "an object"
	}
}

func takeString(to *string, v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	if v.Kind() != '"' {
		return wrongKind(v, at, "a string")
	}
	b, err := jsontext.AppendUnquote(nil, v)
	if err != nil {
		return []posthorn.Fault{{Pointer: string(at), Detail: "is not a valid string"}}
	}
	*to = string(b)
	if strings.IndexByte(*to, 0) >= 0 {
		return []posthorn.Fault{{Pointer: string(at), Detail: "must not contain the NUL character"}}
	}
	return nil
}

func takeStrings(to *[]string, v jsontext.Value, at jsontext.Pointer) (faults []posthorn.Fault) {
	if v.Kind() != '[' {
		return wrongKind(v, at, "an array of strings")
	}
	*to = []string{}
	for i, item := range elements(v) {
		var s string
		faults = append(faults, takeString(&s, item, at.AppendToken(strconv.Itoa(i)))...)
		*to = append(*to, s)
	}
	return faults
}

func takeTime(to *time.Time, v jsontext.Value, at jsontext.Pointer) []posthorn.Fault {
	var s string
	if faults := takeString(&s, v, at); faults != nil {
		return faults
	}
	t, err := posthorn.ParseTime(s)
	if err != nil {
		return []posthorn.Fault{{Pointer: string(at), Detail: err.Error()}}
	}
	*to = t
	return nil
}

// elements are the items of an array that is valid JSON.
func elements(v jsontext.Value) []jsontext.Value {
	d := jsontext.NewDecoder(strings.NewReader(string(v)))
	if _, err := d.ReadToken(); err != nil {
		return nil
	}
	var items []jsontext.Value
	for d.PeekKind() != ']' {
		item, err := d.ReadValue()
		if err != nil {
			return items
		}
		items = append(items, item.Clone())
	}
	return items
}

// input is a body that was read: what is wrong with it so far, and where its
// members stood.
type input struct {
	order  map[string]int
	faults []posthorn.Fault
}

// fault adds what is wrong with the member that pointer names.
func (in *input) fault(pointer, format string, args ...any) {
	in.faults = append(in.faults, posthorn.Fault{Pointer: pointer, Detail: fmt.Sprintf(format, args...)})
}

// sound reports whether nothing is wrong so far with the value that pointer
// names. Its items may be wrong.
func (in *input) sound(pointer string) bool {
	return !slices.ContainsFunc(in.faults, func(f posthorn.Fault) bool { return f.Pointer == pointer })
}

// err is all that is wrong, in the body's order, what is missing last; nil if
// nothing is.
func (in *input) err() error {
	if len(in.faults) == 0 {
		return nil
	}
	slices.SortStableFunc(in.faults, func(a, b posthorn.Fault) int {
		memberA, itemA := in.place(a.Pointer)
		memberB, itemB := in.place(b.Pointer)
		return cmp.Or(cmp.Compare(memberA, memberB), cmp.Compare(itemA, itemB))
	})
	message := invalidBody
	if n := len(in.faults); n > maxFaults {
		in.faults = in.faults[:maxFaults]
		message = fmt.Sprintf("The body has %d faults, of which errors lists the first %d; nothing was changed.", n, maxFaults)
	}
	return &posthorn.Error{Code: posthorn.Invalid, Message: message, Faults: in.faults}
}

// place is where the member that the pointer leads to stood in the body, after
// all others if it did not, and which of its items it leads to.
func (in *input) place(pointer string) (member, item int) {
	at, member := 0, len(in.order)
	for name := range jsontext.Pointer(pointer).Tokens() {
		if at == 0 {
			if n, ok := in.order[name]; ok {
				member = n
			}
		} else {
			item, _ = strconv.Atoi(name)
			break
		}
		at++
	}
	return member, item
}

// maxFaults bounds the answer to a body that is wrong throughout.
const maxFaults = 100

const invalidBody = "The body has faults; nothing was changed. Mend what errors lists and send it again."

// decode reads a JSON object into the struct of fields that into points to.
// Text that is no JSON is an error at once; all else is noted in the input:
// unknown and read-only members, wrong types, null where none may be, and
// members that are missing.
func decode(body []byte, into any, readOnly ...string) (*input, error) {
	if err := checkSyntax(body); err != nil {
		return nil, err
	}
	in := &input{order: map[string]int{}}
	d := jsontext.NewDecoder(strings.NewReader(string(body)))
	if k := d.PeekKind(); k != '{' {
		in.fault("", "must be a JSON object, not %s", kindName(k))
		return in, nil
	}
	known := membersOf(into)
	_, _ = d.ReadToken() // the syntax was checked
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		name := token.String()
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		in.order[name] = len(in.order)
		in.take(known, name, v, readOnly)
	}
	for _, m := range known {
		if set, _ := m.field.state(); !set && m.required {
			in.fault(string(jsontext.Pointer("").AppendToken(m.name)), "is required")
		}
	}
	return in, nil
}

func (in *input) take(known []knownMember, name string, v jsontext.Value, readOnly []string) {
	at := jsontext.Pointer("").AppendToken(clip(name))
	i := slices.IndexFunc(known, func(m knownMember) bool { return m.name == name })
	switch {
	case i < 0 && slices.Contains(readOnly, name):
		in.fault(string(at), "is read-only; leave it out")
	case i < 0 && len(known) == 0:
		in.fault(string(at), "is not known; this body has no members")
	case i < 0:
		names := make([]string, len(known))
		for i, m := range known {
			names[i] = m.name
		}
		in.fault(string(at), "is not known; the members are %s", strings.Join(names, ", "))
	default:
		m := known[i]
		in.faults = append(in.faults, m.field.take(v, at)...)
		if _, null := m.field.state(); null && !m.nullable {
			in.fault(string(at), "must not be null")
		}
	}
}

// knownMember is a field of a body's struct with what its tags say.
type knownMember struct {
	name               string
	required, nullable bool
	field              member
}

func membersOf(into any) []knownMember {
	v := reflect.ValueOf(into).Elem()
	all := make([]knownMember, 0, v.NumField())
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag
		name, options, _ := strings.Cut(tag.Get("json"), ",")
		all = append(all, knownMember{
			name: name, required: options == "", nullable: tag.Get("nullable") == "true",
			field: v.Field(i).Addr().Interface().(member),
		})
	}
	return all
}

// checkSyntax refuses what is not one JSON text of RFC 8259 in UTF-8 with
// distinct member names and bounded depth.
func checkSyntax(body []byte) error {
	if len(body) == 0 {
		return malformed("", "is empty; send a JSON object")
	}
	d := jsontext.NewDecoder(strings.NewReader(string(body)))
	for {
		if _, err := d.ReadToken(); err != nil {
			return syntaxFault(d, err)
		}
		switch depth := d.StackDepth(); {
		case depth > maxDepth:
			return malformed(string(d.StackPointer()), "is nested deeper than %d levels", maxDepth)
		case depth == 0:
			if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
				return malformed("", "has more text after the JSON value")
			}
			return nil
		}
	}
}

func syntaxFault(d *jsontext.Decoder, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return malformed(string(d.StackPointer()), "breaks off before its end")
	}
	s, ok := errors.AsType[*jsontext.SyntacticError](err)
	if !ok {
		return err
	}
	if errors.Is(err, jsontext.ErrDuplicateName) {
		return malformed(string(s.JSONPointer), "is there twice; a name may stand once in an object")
	}
	return malformed(string(s.JSONPointer), "is not JSON: %s (byte %d)", strings.TrimPrefix(s.Err.Error(), "jsontext: "), s.ByteOffset)
}

func malformed(pointer, format string, args ...any) error {
	return &posthorn.Error{Code: posthorn.Malformed, Message: "The body is not well-formed JSON.",
		Faults: []posthorn.Fault{{Pointer: pointer, Detail: fmt.Sprintf(format, args...)}}}
}
