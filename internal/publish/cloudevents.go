package publish

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"

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
	events, err := p.list("", "CloudEvents", func(number int) (Event, error) { return p.cloudEvent(place{InCloudBatch, number}) })
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
