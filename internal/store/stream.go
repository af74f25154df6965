package store

import (
	"context"
	"slices"

	"github.com/posthorn/posthorn"
)

// Streamer reads events in the order in which they become visible, so that a
// reader who goes on from a [StreamPlace] misses none and sees none twice, even on
// several nodes of which one commits late.
type Streamer interface {
	// StreamEnd is the place of what is published from now on: everything whose
	// Publish begins after it was called follows it.
	StreamEnd(ctx context.Context) (StreamPlace, error)
	// Stream returns the events that follow a place, with their bodies. It reads a
	// bounded number of rows and about [StreamBytes] of bodies: a page may be empty
	// and still have More. Events whose payload was erased are left out.
	Stream(ctx context.Context, f StreamFilter, after StreamPlace) (StreamPage, error)
}

// StreamPlace is a place in the stream of a tenant's events; the zero one is
// before all.
type StreamPlace struct {
	// Order goes before ID where ids are not in the order of commits: on
	// PostgreSQL it is the transaction, else 0.
	Order int64
	ID    posthorn.ID
}

// StreamFilter selects events of a tenant.
type StreamFilter struct {
	Tenant int64
	// Endpoint selects events that matched it when they were published; 0 for all.
	Endpoint int64
	// Types select by any of them; none for "*".
	Types []posthorn.Pattern
}

// Selects reports whether the event is one of the filter's; matched tells whether
// it has a delivery of the filter's endpoint. The tests of single endpoints are
// shown only to those who ask for that endpoint.
func (f *StreamFilter) Selects(e *posthorn.Event, matched bool) bool {
	if f.Endpoint != 0 && !matched || f.Endpoint == 0 && posthorn.IsTestRef(e.Key) {
		return false
	}
	if len(f.Types) == 0 {
		return f.Endpoint != 0 || posthorn.Pattern("*").Match(e.Type)
	}
	return slices.ContainsFunc(f.Types, func(p posthorn.Pattern) bool { return p.Match(e.Type) })
}

// StreamPage is what follows a place.
type StreamPage struct {
	Events []posthorn.Event
	Places []StreamPlace // of the events
	// Next is the place behind all that was looked at.
	Next StreamPlace
	// More: there is more already.
	More bool
	// Unsettled: there is more that cannot be shown yet, because a publish that
	// began before it has not ended. It takes milliseconds.
	Unsettled bool
}

// Bounds of a page of the stream.
const (
	StreamRows  = 500
	StreamBytes = 1 << 20
)

// StreamRow is a row that a page looked at; its body is not read yet.
type StreamRow struct {
	Event   posthorn.Event
	Place   StreamPlace
	Size    int
	Matched bool
}

// Choose takes as many of the rows into the page as its bounds allow, and returns
// the ids whose bodies are to be read. rows may be one longer than a page.
func (p *StreamPage) Choose(f *StreamFilter, rows []StreamRow) (ids []posthorn.ID) {
	size := 0
	for i := range rows {
		r := &rows[i]
		if i == StreamRows || size > 0 && size+r.Size > StreamBytes {
			p.More = true
			return ids
		}
		if p.Next = r.Place; f.Selects(&r.Event, r.Matched) {
			size += r.Size
			p.Events, p.Places, ids = append(p.Events, r.Event), append(p.Places, r.Place), append(ids, r.Event.ID)
		}
	}
	return ids
}

// Fill gives the events their bodies and leaves out those that have none.
func (p *StreamPage) Fill(bodies map[posthorn.ID][]byte) {
	n := 0
	for i := range p.Events {
		if body := bodies[p.Events[i].ID]; body != nil {
			p.Events[n], p.Places[n] = p.Events[i], p.Places[i]
			p.Events[n].Body = body
			n++
		}
	}
	p.Events, p.Places = p.Events[:n], p.Places[:n]
}
