package publish

import (
	"bytes"
	"fmt"

	"github.com/posthorn/posthorn"
)

func parseBatch(body []byte, c check) ([]Event, error) {
	p := newParser(c)
	defer p.close()
	p.read(body)
	events, err := p.batch()
	if err == nil {
		err = p.end()
	}
	if err != nil {
		return nil, malformed(err, body, 1, "")
	}
	return events, p.faults.err()
}

func parseNDJSON(body []byte, c check) ([]Event, error) {
	p := newParser(c)
	defer p.close()
	var events []Event
	count, number := 0, 0
	for line := range bytes.Lines(body) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		at := place{InBatch, count}
		if count++; count > MaxBatchEvents {
			continue // counted, not read
		}
		p.read(line)
		e, err := p.event(at)
		if err == nil {
			err = p.end()
		}
		if err != nil {
			return nil, malformed(err, line, number, at.String())
		}
		events = append(events, e)
	}
	if count == 0 {
		return nil, posthorn.Errorf(posthorn.Malformed, "The body holds no event; send one JSON object per line.")
	}
	p.checkCount("events", count)
	return events, p.faults.err()
}

// checkCount refuses empty and overlong batches.
func (p *parser) checkCount(member string, count int) {
	if count == 0 || count > MaxBatchEvents {
		p.faults.add(place{}, member, fmt.Sprintf("holds %d events; it must hold 1 to %d", count, MaxBatchEvents))
	}
}

// batch reads {"events":[…]}.
func (p *parser) batch() ([]Event, error) {
	if p.dec.PeekKind() != '{' {
		return nil, p.wrong(place{}, "", `must be an object: {"events":[…]}`)
	}
	if _, err := p.dec.ReadToken(); err != nil {
		return nil, err
	}
	var events []Event
	found := false
	for p.dec.PeekKind() != '}' {
		name, err := p.name()
		switch {
		case err != nil:
			return nil, err
		case name != "events":
			err = p.wrong(place{}, name, "is not known; a batch has only events")
		default:
			found = true
			events, err = p.list("events", "events", func(number int) (Event, error) { return p.event(place{InBatch, number}) })
		}
		if err != nil {
			return nil, err
		}
	}
	if !found {
		p.faults.add(place{}, "events", "is missing")
	}
	_, err := p.dec.ReadToken()
	return events, err
}

// list reads the array that is the member, or with "" the body, each event by one.
func (p *parser) list(member, what string, one func(number int) (Event, error)) ([]Event, error) {
	if p.dec.PeekKind() != '[' {
		return nil, p.wrong(place{}, member, "must be an array of "+what)
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
		e, err := one(count - 1)
		if err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	p.checkCount(member, count)
	_, err := p.dec.ReadToken()
	return events, err
}
