package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// CloudEvents 1.0.2 (https://github.com/cloudevents/spec) are taken in the JSON
// format, alone and in batches, and in the binary mode of the HTTP binding. type is
// the type, time the timestamp; the extensions tenant and deliverat stand for the
// members tenant and deliver_at; other extensions and dataschema are checked for
// their form and left out.

// CloudEventRef is the id of an event that came as a CloudEvent: "evt_" and the
// first 20 bytes of SHA-256(source, NUL, id) in hex. source and id name an event
// (CloudEvents 1.0.2, 3.1.1), and neither holds a NUL. So the same event published
// again is known.
func CloudEventRef(source, id string) string {
	sum := sha256.Sum256([]byte(source + "\x00" + id))
	return posthorn.EventPrefix + hex.EncodeToString(sum[:20])
}

// InCloudBatch is the pointer of event i of a batch of CloudEvents.
func InCloudBatch(i int) string { return fmt.Sprintf("/%d", i) }

// called is what a member is called in the form that the event came in.
func (e *Event) called(member string) string {
	if e.SourceID == "" {
		return member
	}
	switch member {
	case "timestamp":
		return "time"
	case "deliver_at":
		return "deliverat"
	case "source_id":
		return "id"
	}
	return member
}

// ParseCloudEvent reads one CloudEvent in the JSON format. Its errors are those of
// [ParseEvent], and UnsupportedMedia for data that is not JSON.
func ParseCloudEvent(body []byte) (Event, error) { return parseCloudEvent(body, nil) }

// ParseCloudEvents reads a batch of CloudEvents in the JSON format: an array. Faults
// point to /n.
func ParseCloudEvents(body []byte) ([]Event, error) { return parseCloudEvents(body, nil) }

// ParseBinary reads a CloudEvent in binary mode: its attributes are those headers
// that begin with Ce-, its data is the body, whose type is JSON. Faults point to the
// attributes as in the JSON format.
func ParseBinary(headers map[string][]string, body []byte) (Event, error) {
	return parseBinary(headers, body, nil)
}

func parseCloudEvent(body []byte, c check) (Event, error) {
	p := newParser(c)
	defer p.close()
	p.read(body)
	e, err := p.cloudEvent(place{})
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return Event{}, malformed(err, body, 1, "")
	}
	return e, p.cloudFaults()
}

func parseCloudEvents(body []byte, c check) ([]Event, error) {
	p := newParser(c)
	defer p.close()
	p.read(body)
	events, err := p.cloudBatch()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, malformed(err, body, 1, "")
	}
	return events, p.cloudFaults()
}

// cloudFaults is all that is wrong; data that is not JSON goes first.
func (p *parser) cloudFaults() error {
	if len(p.media) == 0 {
		return p.faults.err()
	}
	return &posthorn.Error{
		Code:    posthorn.UnsupportedMedia,
		Message: "Events carry JSON objects; data of another kind is not taken.",
		Faults:  p.media[:min(len(p.media), maxFaults)],
	}
}

func (p *parser) cloudBatch() ([]Event, error) {
	if p.dec.PeekKind() != '[' {
		return nil, p.wrong(place{}, "", "must be an array of CloudEvents")
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, err
	}
	var events []Event
	count := 0
	for p.dec.PeekKind() != ']' {
		if count++; count > MaxBatchEvents {
			if err := p.dec.SkipValue(); err != nil { // counted, not read
				return nil, err
			}
			continue
		}
		e, err := p.cloudEvent(place{InCloudBatch, count - 1})
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	if count == 0 || count > MaxBatchEvents {
		p.faults.add(place{}, "", fmt.Sprintf("holds %d events; it must hold 1 to %d", count, MaxBatchEvents))
	}
	_, err := p.dec.ReadToken()
	return events, err
}

// cloud gathers a CloudEvent.
type cloud struct {
	p     *parser
	at    place
	event Event
	skip  members
	// seen are the attributes that are there, right or wrong.
	seen      map[string]bool
	dataThere bool
}

// cloudEvent reads one event. Its error is one of the syntax; other faults are
// collected.
func (p *parser) cloudEvent(at place) (Event, error) {
	if p.dec.PeekKind() != '{' {
		return Event{}, p.wrong(at, "", "must be an object: a CloudEvent")
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Event{}, err
	}
	c := &cloud{p: p, at: at, seen: map[string]bool{}}
	for p.dec.PeekKind() != '}' {
		name, err := p.name()
		if err == nil {
			err = c.member(name)
		}
		if err != nil {
			return Event{}, err
		}
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return Event{}, err
	}
	return c.finish(), nil
}

// member reads the value of one member of the JSON format.
func (c *cloud) member(name string) (err error) {
	switch name {
	case "data":
		c.dataTwice(name)
		var ok bool
		if c.event.Data, ok, err = c.p.data(c.at); !ok {
			c.skip |= memberData
		}
		return err
	case "data_base64":
		return c.base64()
	}
	switch kind := c.p.dec.PeekKind(); {
	case kind == 'n': // not set
		return c.p.dec.SkipValue()
	case kind == '"':
		v, err := c.p.dec.ReadValue()
		if err != nil {
			return err
		}
		c.attribute(name, unquote(v))
		return nil
	case (kind == 't' || kind == 'f' || kind == '0') && !isAttribute(name):
		if !validAttribute(name) {
			c.fault(name, attributeRule)
		}
		return c.p.dec.SkipValue() // an extension that means nothing to us
	}
	c.seen[name] = true
	c.spoil(name)
	return c.p.wrong(c.at, name, "must be a string")
}

func (c *cloud) fault(name, detail string) { c.p.faults.add(c.at, name, detail) }

func (c *cloud) dataTwice(name string) {
	if c.dataThere {
		c.fault(name, "is there beside the other form of data; send one of them")
	}
	c.dataThere = true
}

func (c *cloud) base64() error {
	c.dataTwice("data_base64")
	if c.p.dec.PeekKind() != '"' {
		c.skip |= memberData
		return c.p.wrong(c.at, "data_base64", "must be a string")
	}
	v, err := c.p.dec.ReadValue()
	if err != nil {
		return err
	}
	data, err := base64.StdEncoding.DecodeString(unquote(v))
	if err == nil {
		err = strictObject(data)
	}
	if err != nil {
		c.skip |= memberData
		c.p.media = append(c.p.media, posthorn.Fault{Pointer: c.at.String() + "/data_base64", Detail: "must be the base64 of a JSON object"})
		return nil
	}
	c.event.Data = bytes.TrimSpace(data)
	return nil
}

// strictObject checks what data in its plain form is checked for.
func strictObject(data []byte) error {
	d := jsontext.NewDecoder(bytes.NewReader(data))
	if d.PeekKind() != '{' {
		return fmt.Errorf("no object")
	}
	v, err := d.ReadValue()
	if err != nil {
		return err
	}
	if deeperThan(v, MaxDepth) {
		return fmt.Errorf("nested too deep")
	}
	if _, err := d.ReadToken(); err != io.EOF {
		return errTrailing
	}
	return nil
}

const attributeRule = "is no name of a CloudEvents attribute: they are 1 to 20 of a-z and 0-9"

func isAttribute(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "tenant", "deliverat":
		return true
	}
	return false
}

func validAttribute(name string) bool {
	return name != "" && len(name) <= 20 && !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// spoil keeps an attribute that is wrong from being found missing, too.
func (c *cloud) spoil(name string) {
	switch name {
	case "type":
		c.skip |= memberType
	case "id":
		c.skip |= memberID
	case "time":
		c.skip |= memberTimestamp
	case "deliverat":
		c.skip |= memberDeliverAt
	}
}

// attribute takes one attribute of either mode.
func (c *cloud) attribute(name, value string) {
	c.seen[name] = true
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		c.spoil(name)
		c.fault(name, "holds a control character")
		return
	}
	e := &c.event
	switch name {
	case "specversion":
		if value != "1.0" {
			c.fault(name, "must be 1.0")
		}
	case "type":
		if e.Type = value; value == "" {
			c.spoil(name)
			c.fault(name, "must not be empty")
		}
	case "id":
		if e.SourceID = value; value == "" {
			c.fault(name, "must not be empty")
		}
	case "source":
		if e.Source = value; value == "" {
			c.fault(name, "must not be empty")
		} else if _, err := url.Parse(value); err != nil {
			c.fault(name, "must be a URI reference, such as /cases or https://platform.example.com/cases")
		}
	case "subject":
		if e.Subject = value; value == "" {
			c.fault(name, "must not be empty; leave it out for none")
		}
	case "time", "deliverat":
		t, ok := parseTime(strings.ToUpper(value))
		if !ok {
			c.spoil(name)
			c.fault(name, timeRule)
		} else if name == "time" {
			e.Timestamp = t
		} else {
			e.DeliverAt = t
		}
	case "tenant":
		if e.Tenant = value; !posthorn.ValidTenantName(value) {
			c.fault(name, "must be the name of a tenant: 1 to 64 of A-Z, a-z, 0-9, ., _ and -, beginning with a letter or digit")
		}
	case "datacontenttype":
		if !jsonMedia(value) {
			c.p.media = append(c.p.media, posthorn.Fault{Pointer: c.at.String() + "/datacontenttype", Detail: "must be application/json or a type that ends in +json; leave it out for application/json"})
		}
	default:
		if !validAttribute(name) {
			c.fault(name, attributeRule)
		}
	}
}

// jsonMedia reports whether a media type is one of JSON in UTF-8.
func jsonMedia(s string) bool {
	kind, params, err := mime.ParseMediaType(s)
	charset := params["charset"]
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) && (charset == "" || strings.EqualFold(charset, "utf-8"))
}

// finish makes the event of what was read and checks it as a whole.
func (c *cloud) finish() Event {
	for _, name := range []string{"specversion", "id", "source"} {
		if !c.seen[name] {
			c.fault(name, "is missing")
		}
	}
	e := &c.event
	if e.SourceID != "" {
		e.ID = CloudEventRef(e.Source, e.SourceID)
	} else {
		e.SourceID = "-" // it has a fault already; the others are told in the terms of CloudEvents
	}
	if c.dataThere && len(e.Data) == 0 {
		c.skip |= memberData
	}
	e.checkForm(c.at, c.skip, &c.p.faults)
	if c.p.check != nil {
		c.p.check(e, c.at, c.skip, &c.p.faults)
	}
	return *e
}

func parseBinary(headers map[string][]string, body []byte, check check) (Event, error) {
	p := newParser(check)
	defer p.close()
	c := &cloud{p: p, seen: map[string]bool{}}
	for name, values := range headers {
		attribute, ok := strings.CutPrefix(strings.ToLower(name), "ce-")
		if !ok {
			continue
		}
		value, err := headerValue(values)
		switch {
		case err != nil:
			c.seen[attribute] = true
			c.spoil(attribute)
			c.fault(attribute, err.Error())
		case attribute == "datacontenttype" || attribute == "data" || attribute == "data_base64":
			c.fault(attribute, "is no header of the binary mode: the data is the body, and its type is the Content-Type")
		default:
			c.attribute(attribute, value)
		}
	}
	p.read(body)
	if len(bytes.TrimSpace(body)) > 0 {
		var ok bool
		var err error
		c.dataThere = true
		if c.event.Data, ok, err = p.data(place{}); !ok {
			c.skip |= memberData
		}
		if err == nil {
			err = p.end()
		}
		if err != nil {
			return Event{}, malformed(err, body, 1, "/data")
		}
	}
	e := c.finish()
	slices.SortFunc(p.faults.list, func(a, b posthorn.Fault) int { return strings.Compare(a.Pointer, b.Pointer) }) // headers have no order
	return e, p.cloudFaults()
}

// headerValue reads the value of a Ce- header: double-quoted parts are unescaped,
// then one round of percent-decoding (HTTP binding 1.0.2, section 3.1.3.2).
func headerValue(values []string) (string, error) {
	if len(values) != 1 {
		return "", fmt.Errorf("is there %d times; send the header once", len(values))
	}
	plain, err := unquoteHeader(values[0])
	if err != nil {
		return "", err
	}
	decoded, err := url.PathUnescape(plain)
	if err != nil {
		return "", fmt.Errorf("has a %% that two hexadecimal digits do not follow; write it as %%25")
	}
	if !utf8.ValidString(decoded) {
		return "", fmt.Errorf("is not UTF-8 once it is percent-decoded")
	}
	return decoded, nil
}

// unquoteHeader resolves the quoted strings of RFC 9110, section 5.6.4.
func unquoteHeader(s string) (string, error) {
	if !strings.Contains(s, `"`) {
		return s, nil
	}
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch ch := s[i]; {
		case ch == '"':
			quoted = !quoted
		case ch == '\\' && quoted && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(ch)
		}
	}
	if quoted {
		return "", fmt.Errorf("has a quotation mark that is not closed")
	}
	return b.String(), nil
}
