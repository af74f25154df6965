package publish

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// ParseEvent reads the body of a single event. Its errors are *posthorn.Error:
// Malformed for what is not strict JSON (syntax, UTF-8, duplicate names, depth),
// Invalid with all faults for members that are unknown, missing or wrong.
func ParseEvent(body []byte) (Event, error) { return parseEvent(body, nil) }

// ParseBatch reads {"events":[…]}. Faults point to /events/n.
func ParseBatch(body []byte) ([]Event, error) { return parseBatch(body, nil) }

// ParseNDJSON reads one event per line. Faults point to /events/n, where n counts
// the lines that are not empty, from 0.
func ParseNDJSON(body []byte) ([]Event, error) { return parseNDJSON(body, nil) }

// check finds faults that the form of an event does not show. Members whose bit
// is in skip have been reported.
type check func(e *Event, at place, skip members, f *faults)

// members is a set of an event's members.
type members uint8

const (
	memberID members = 1 << iota
	memberType
	memberData
	memberTimestamp
	memberDeliverAt
)

// parser reads JSON of one body.
type parser struct {
	dec    *jsontext.Decoder
	buf    bytes.Buffer
	faults faults
	check  check
	// media are faults of CloudEvents whose data is not JSON: they go before others.
	media []posthorn.Fault
}

// parsers are kept, for each holds tables that are dear to make.
var parsers = sync.Pool{New: func() any {
	p := new(parser)
	p.dec = jsontext.NewDecoder(&p.buf)
	return p
}}

func newParser(c check) *parser {
	p := parsers.Get().(*parser)
	p.check = c
	return p
}

// read makes the parser read b, without a copy.
func (p *parser) read(b []byte) {
	p.buf = *bytes.NewBuffer(b)
	p.dec.Reset(&p.buf)
}

// close gives the parser back, without what it held of the body.
func (p *parser) close() {
	p.read(nil)
	p.faults, p.check, p.media = faults{}, nil, nil
	parsers.Put(p)
}

func parseEvent(body []byte, c check) (Event, error) {
	p := newParser(c)
	defer p.close()
	p.read(body)
	e, err := p.event(place{})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return Event{}, malformed(err, body, 1, "")
	}
	return e, p.faults.err()
}

// event reads one event. Its error is one of the syntax; other faults are
// collected.
func (p *parser) event(at place) (e Event, err error) {
	if p.dec.PeekKind() != '{' {
		return e, p.wrong(at, "", `must be an object: {"type":"…","data":{…}}`)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return e, err
	}
	var skip members
	for p.dec.PeekKind() != '}' {
		name, err := p.name()
		if err != nil {
			return e, err
		}
		bad, err := p.member(&e, at, name)
		if err != nil {
			return e, err
		}
		skip |= bad
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return e, err
	}
	e.checkForm(at, skip, &p.faults)
	if p.check != nil {
		p.check(&e, at, skip, &p.faults)
	}
	return e, nil
}

// member reads the value of one member. It returns the member's bit when the
// value is wrong and was reported.
func (p *parser) member(e *Event, at place, name string) (bad members, err error) {
	var ok bool
	switch name {
	case "type":
		e.Type, ok, err = p.text(at, name)
		bad = memberType
		if ok && e.Type == "" {
			ok = false
			p.faults.add(at, name, "must not be empty")
		}
	case "data":
		e.Data, ok, err = p.data(at)
		bad = memberData
	case "id":
		e.ID, ok, err = p.text(at, name)
		bad = memberID
		if ok && e.ID == "" {
			ok = false
			p.faults.add(at, name, idRule)
		}
	case "timestamp":
		e.Timestamp, ok, err = p.time(at, name)
		bad = memberTimestamp
	case "deliver_at":
		e.DeliverAt, ok, err = p.time(at, name)
		bad = memberDeliverAt
	case "tenant":
		e.Tenant, ok, err = p.text(at, name)
		if ok && !posthorn.ValidTenantName(e.Tenant) {
			p.faults.add(at, name, "must be the name of a tenant: 1 to 64 of A-Z, a-z, 0-9, ., _ and -, beginning with a letter or digit")
		}
	default:
		return 0, p.wrong(at, name, "is not known; an event has type, data, id, timestamp, tenant and deliver_at")
	}
	if ok {
		bad = 0
	}
	return bad, err
}

// wrong reports a fault of the value that comes next, and skips it.
func (p *parser) wrong(at place, member, detail string) error {
	if err := p.dec.SkipValue(); err != nil {
		return err
	}
	p.faults.add(at, member, detail)
	return nil
}

// name reads a member's name.
func (p *parser) name() (string, error) {
	v, err := p.dec.ReadValue()
	if err != nil {
		return "", err
	}
	// The names that there are need no memory of their own.
	switch raw := v[1 : len(v)-1]; string(raw) {
	case "type":
		return "type", nil
	case "data":
		return "data", nil
	case "id":
		return "id", nil
	case "timestamp":
		return "timestamp", nil
	}
	return unquote(v), nil
}

// unquote returns the text of a JSON string that the decoder has accepted.
func unquote(v jsontext.Value) string {
	if raw := v[1 : len(v)-1]; bytes.IndexByte(raw, '\\') < 0 {
		return string(raw)
	}
	b, _ := jsontext.AppendUnquote(nil, v) // accepted by the decoder before
	return string(b)
}

func (p *parser) text(at place, member string) (s string, ok bool, err error) {
	if p.dec.PeekKind() != '"' {
		return "", false, p.wrong(at, member, mustBeString(member))
	}
	v, err := p.dec.ReadValue()
	if err != nil {
		return "", false, err
	}
	return unquote(v), true, nil
}

func mustBeString(member string) string {
	if member == "type" {
		return "must be a string"
	}
	return "must be a string; leave the member out for none"
}

func (p *parser) time(at place, member string) (t time.Time, ok bool, err error) {
	s, ok, err := p.text(at, member)
	if err != nil || !ok {
		return t, false, err
	}
	t, wrong := posthorn.ParseTime(s)
	if wrong != nil {
		p.faults.add(at, member, wrong.Error())
	}
	return t, wrong == nil, nil
}

// data reads the value of data: an object, whose bytes are kept as they are.
func (p *parser) data(at place) (data []byte, ok bool, err error) {
	if p.dec.PeekKind() != '{' {
		return nil, false, p.wrong(at, "data", "must be an object")
	}
	v, err := p.dec.ReadValue()
	if err != nil {
		return nil, false, err
	}
	if deeperThan(v, MaxDepth) {
		return nil, false, &posthorn.Error{
			Code:    posthorn.Malformed,
			Message: "The event's data is nested too deep.",
			Faults:  []posthorn.Fault{{Pointer: at.String() + "/data", Detail: fmt.Sprintf("nests deeper than %d levels", MaxDepth)}},
		}
	}
	return v[:len(v):len(v)], true, nil
}

// deeperThan reports whether a valid JSON value nests deeper than limit.
func deeperThan(v []byte, limit int) bool {
	if bytes.Count(v, []byte("{"))+bytes.Count(v, []byte("[")) <= limit {
		return false // it could not; this is what real data is like
	}
	depth, quoted := 0, false
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			if depth++; depth > limit {
				return true
			}
		case c == '}' || c == ']':
			depth--
		}
	}
	return false
}
