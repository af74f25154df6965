package api

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
)

// typeEventStream is that of server-sent events (WHATWG HTML, section 9.2).
const typeEventStream = "text/event-stream"

const (
	streamsOfTenant = 10
	streamsInAll    = 200
	// streamLook is the pause between looks for events of other nodes; an event of
	// this one is told at once.
	streamLook = 500 * time.Millisecond
	// streamSettle is the pause when a publish that must come first is under way.
	streamSettle = 10 * time.Millisecond
	// streamBeat is the pause between heartbeats on a quiet stream.
	streamBeat = 15 * time.Second
	// streamWrite is how long a reader may take for one event.
	streamWrite = 10 * time.Second
)

func (s *server) streamOperations() []*operation {
	return []*operation{{
		id: "stream-events", method: "GET", path: "/stream", tag: "Events", scope: access.ScopeRead,
		summary: "Follow events as they are published",
		description: "Server-sent events: each has as its data the event as endpoints receive it, byte for byte, and as its id a cursor. " +
			"A client that comes again with the last id in Last-Event-ID misses nothing, for as long as events are kept; one that is older is answered 410. " +
			"An event whose body holds a carriage return, which the format cannot carry, comes under the event name base64. " +
			"The field test: true marks tests. A comment comes every 15 seconds at least. Following makes no endpoint and no delivery. " +
			"A tenant may have 10 streams at a time, by whatever tokens, and one while most of those that a node has for all are in use.",
		query: []param{
			{"types", "Event types or patterns, joined by commas, as cases.*,assignments.created; everything but operational types by default.", stringSchema()},
			{"endpoint", "Only what matched this endpoint when it was published.", stringSchema()},
		},
		headers:  []param{{"Last-Event-ID", "Go on behind this one; without it the stream begins now.", stringSchema()}},
		success:  []success{{status: 200, doc: "The stream. It ends when the token is revoked or expires or the tenant is deleted, with a comment that says which (: ended: …), and when the node stops."}},
		failures: []posthorn.Code{posthorn.NotFound, posthorn.Gone},
		stream:   s.streamEvents,
	}}
}

// streamFilter reads the query.
func (s *server) streamFilter(q *request) (store.StreamFilter, error) {
	f := store.StreamFilter{Tenant: q.tenant.ID, Types: q.query.patterns("types")}
	if err := q.query.err(); err != nil {
		return f, err
	}
	if q.query.has("endpoint") {
		e, err := s.Store.EndpointByRef(q.Context(), q.tenant.ID, q.query.text("endpoint"))
		if err != nil {
			return f, missing(err, "endpoint")
		}
		f.Endpoint = e.ID
	}
	return f, nil
}

func (s *server) streamEvents(w http.ResponseWriter, q *request) error {
	f, err := s.streamFilter(q)
	if err != nil {
		return err
	}
	place, err := s.streamPlace(q)
	if err != nil {
		return err
	}
	who := share.Tenant(f.Tenant)
	if err := s.streams.take(who); err != nil {
		return err
	}
	defer s.streams.Give(who, 1)
	wake, leave := s.Publish.Follow(f.Tenant)
	defer leave()
	right, release := s.rightOf(q, w)
	defer release()
	out := &eventStream{w: w, right: right, id: func(p store.StreamPlace) string { return s.streamCursor(f.Tenant, p) }}
	if err := out.begin(place); err != nil {
		return nil // the reader is gone
	}
	s.follow(out, f, place, wake)
	out.farewell()
	return nil
}

// follow sends events until the reader goes or is too slow, may read no more, or
// the server stops.
func (s *server) follow(out *eventStream, f store.StreamFilter, place store.StreamPlace, wake <-chan struct{}) {
	ctx := out.right.ctx
	sent := time.Now()                  // pauses follow the runtime's clock
	if out.right.goesOn(false) != nil { // it could have changed since the request was let in
		return
	}
	for {
		page, err := s.Store.Stream(ctx, f, place)
		if err != nil && !isUnavailable(err) {
			return // the client comes again and is told
		}
		if err == nil {
			for i := range page.Events {
				if out.event(&page.Events[i], page.Places[i]) != nil {
					return
				}
			}
			place = page.Next
		}
		switch {
		case len(page.Events) > 0:
			err, sent = out.flush(), time.Now()
		case time.Since(sent) >= streamBeat:
			err, sent = out.beat(place), time.Now()
		default:
			err = nil
		}
		if err != nil {
			return
		}
		wait := streamLook
		switch {
		case page.More:
			wait = 0
		case page.Unsettled:
			wait = streamSettle
		}
		select {
		case <-s.Stopping:
			return
		case <-ctx.Done():
			return
		case <-wake:
		case <-time.After(wait):
		}
		if out.right.goesOn(false) != nil {
			return
		}
	}
}

func isUnavailable(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrOverloaded)
}

// A cursor of the stream is a place and when it was given out, sealed.

func streamBind(tenant int64) secretbox.Bind { return secretbox.Bind{Kind: "stream", Tenant: tenant} }

func (s *server) streamCursor(tenant int64, p store.StreamPlace) string {
	plain := fmt.Appendf(nil, "%d %d %d", p.Order, int64(p.ID), s.Now().Unix())
	return base64.RawURLEncoding.EncodeToString(secretbox.Pack(s.Keyring.Seal(plain, streamBind(tenant))))
}

// streamPlace is where the stream begins: behind Last-Event-ID, or now.
func (s *server) streamPlace(q *request) (p store.StreamPlace, err error) {
	values := q.Header["Last-Event-Id"]
	if len(values) == 0 || values[0] == "" {
		return s.Store.StreamEnd(q.Context())
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(values[0])
	keyID, box, ok := secretbox.Unpack(raw)
	var plain []byte
	if ok && err == nil {
		plain, err = s.Keyring.Open(keyID, box, streamBind(q.tenant.ID))
	}
	var given int64
	if _, scan := fmt.Sscanf(string(plain), "%d %d %d", &p.Order, (*int64)(&p.ID), &given); err != nil || scan != nil {
		return p, posthorn.Errorf(posthorn.Malformed, "Last-Event-ID is not one that a stream of this tenant gave out; leave it out to begin now. One of a tenant that was deleted is not good for a new tenant of its name.")
	}
	if s.Now().Sub(time.Unix(given, 0)) > s.Retention {
		return p, posthorn.Errorf(posthorn.Gone, "Last-Event-ID is older than events are kept, so that some may be missing. Begin anew without it; GET %s/events lists what is there.", Base)
	}
	return p, nil
}

// eventStream writes server-sent events.
type eventStream struct {
	w     http.ResponseWriter
	right *right
	id    func(store.StreamPlace) string
	buf   []byte
}

// begin sends the head, and the place as an id without an event, so that a client
// which is cut off before the first event can go on from here.
func (o *eventStream) begin(place store.StreamPlace) error {
	// A server's limits of time are for answers that end. A writer without a
	// connection has none to set.
	if err := o.right.conn.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	h := o.w.Header()
	h.Set("Content-Type", typeEventStream)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx holds answers back else
	o.w.WriteHeader(http.StatusOK)
	return o.beat(place)
}

func (o *eventStream) beat(place store.StreamPlace) error {
	o.buf = append(append(append(o.buf[:0], ": posthorn\nid: "...), o.id(place)...), "\n\n"...)
	if err := o.write(); err != nil {
		return err
	}
	return o.flush()
}

func (o *eventStream) event(e *posthorn.Event, place store.StreamPlace) error {
	b := append(append(append(o.buf[:0], "id: "...), o.id(place)...), '\n')
	if e.Kind == posthorn.EventTest {
		b = append(b, "test: true\n"...)
	}
	if body := string(e.Body); strings.ContainsRune(body, '\r') {
		b = append(b, "event: base64\ndata: "...)
		b = base64.StdEncoding.AppendEncode(b, e.Body)
		b = append(b, '\n')
	} else {
		for line := range strings.SplitSeq(body, "\n") {
			b = append(append(append(b, "data: "...), line...), '\n')
		}
	}
	o.buf = append(b, '\n')
	return o.write()
}

// write gives the reader a while: one that is too slow is cut off, and comes again.
func (o *eventStream) write() error {
	if err := o.right.mayWrite(streamWrite); err != nil {
		return err
	}
	_, err := o.w.Write(o.buf)
	return err
}

func (o *eventStream) flush() error {
	if err := o.right.mayWrite(streamWrite); err != nil {
		return err
	}
	return o.right.conn.Flush()
}

// farewell says, in a comment, why the reader may read no more. A client that comes
// again is told by the answer's status.
func (o *eventStream) farewell() {
	if why := o.right.reason(); why != "" {
		_, _ = fmt.Fprintf(o.w, ": ended: %s\n\n", why)
		_ = o.right.conn.Flush()
	}
}
