package api

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
)

// streamWorld is a world behind a real listener. stop ends its streams as a
// server that stops does.
func streamWorld(t *testing.T) (w *world, connect func(who string) *client.Client, stop func()) {
	stopping := make(chan struct{})
	w = newWorld(t, func(c *Config) { c.Stopping = stopping })
	server := httptest.NewServer(w.handler)
	t.Cleanup(server.Close)
	stop = func() {
		select {
		case <-stopping:
		default:
			close(stopping)
		}
	}
	t.Cleanup(stop)
	return w, func(who string) *client.Client {
		c, err := client.New(client.Config{Server: server.URL, Token: w.tokens[who]})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}, stop
}

// followed is a stream that a test reads.
type followed struct {
	t      *testing.T
	events chan *client.Streamed
	ended  chan error
	leave  func()
}

func follow(t *testing.T, c *client.Client, o client.StreamOptions) *followed {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	f := &followed{t, make(chan *client.Streamed, 1000), make(chan error, 1), cancel}
	connected := make(chan struct{}, 100)
	o.Changed = func(why error) {
		if why == nil {
			connected <- struct{}{}
		}
	}
	go func() {
		for e, err := range c.Stream(ctx, o) {
			if err != nil {
				f.ended <- err
				return
			}
			f.events <- e
		}
	}()
	t.Cleanup(cancel)
	select {
	case <-connected:
	case err := <-f.ended:
		f.ended <- err
	case <-time.After(20 * time.Second):
		t.Fatal("the stream did not begin")
	}
	return f
}

func (f *followed) next() *client.Streamed {
	f.t.Helper()
	select {
	case e := <-f.events:
		return e
	case err := <-f.ended:
		f.t.Fatalf("the stream ended: %v", err)
	case <-time.After(20 * time.Second):
		f.t.Fatal("nothing came")
	}
	return nil
}

// want reads the ids that come next.
func (f *followed) want(ids ...string) (last *client.Streamed) {
	f.t.Helper()
	for _, id := range ids {
		if last = f.next(); last.ID != id {
			f.t.Fatalf("%s came, want %s", last.ID, id)
		}
	}
	return last
}

// fails waits for the end and checks the status.
func (f *followed) fails(status int) {
	f.t.Helper()
	select {
	case err := <-f.ended:
		if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != status {
			f.t.Errorf("it ended with %v, want %d", err, status)
		}
	case e := <-f.events:
		f.t.Fatalf("%s came", e.ID)
	case <-time.After(20 * time.Second):
		f.t.Fatal("it did not end")
	}
}

func TestStreamShowsEventsByteForByteAndGoesOn(t *testing.T) {
	w, connect, _ := streamWorld(t)
	f := follow(t, connect("acme-read"), client.StreamOptions{})
	other := follow(t, connect("other"), client.StreamOptions{})
	bodies := []string{`{"a": 1152921504606846977, "slash":"\/" }`, "{\n  \"data\": \"x\",\n\n  \"id\": 5\n}", "{\r\n\"a\"\r:\n1}", `{"é":"  "}`, "{ }"}
	var ids []string
	for _, data := range bodies {
		ids = append(ids, w.do("acme", "POST", "/events", `{"type":"cases.updated","data":`+data+`}`).want(202).text("data.id"))
	}
	theirs := w.event("other", "cases.closed")
	var cursors []string
	for i, id := range ids {
		e := f.want(id)
		stored, err := w.store.EventByRef(t.Context(), w.tenant("acme").ID, id)
		if err != nil {
			t.Fatal(err)
		}
		if string(e.Body) != string(stored.Body) || string(e.Data) != bodies[i] || e.Type != "cases.updated" || !e.Timestamp.Equal(began) || e.Test {
			t.Errorf("%+v\nwant %s", e, stored.Body)
		}
		cursors = append(cursors, e.Cursor)
	}
	other.want(theirs)
	for i, cursor := range cursors {
		again := follow(t, connect("acme"), client.StreamOptions{After: cursor})
		again.want(ids[i+1:]...)
		next := w.event("acme", "cases.closed")
		ids = append(ids, next)
		again.want(next)
		again.leave()
	}
	if got := w.do("acme", "GET", "/endpoints", "").ids(); len(got) != 0 {
		t.Errorf("following made endpoints: %v", got)
	}
	if got := w.do("acme", "GET", "/deliveries", "").ids(); len(got) != 0 {
		t.Errorf("following made deliveries: %v", got)
	}
	follow(t, connect("other"), client.StreamOptions{After: cursors[0]}).fails(400) // of another tenant
}

func TestStreamSelects(t *testing.T) {
	w, connect, _ := streamWorld(t)
	id := w.endpoint("acme", `{"url":"https://a.example.com","events":["cases.closed"]}`)
	types := follow(t, connect("acme"), client.StreamOptions{Types: []string{"cases.updated", "assignments.*"}})
	endpoint := follow(t, connect("acme"), client.StreamOptions{Endpoint: id})
	closed, updated, created := w.event("acme", "cases.closed"), w.event("acme", "cases.updated"), w.event("acme", "assignments.created")
	test := w.as("acme", "POST", "/events", `{"type":"cases.closed","data":{}}`).with(testHeader, "true").do().want(202).text("data.id")
	types.want(updated, created)
	if e := endpoint.want(closed, test); !e.Test {
		t.Error("the test is not marked")
	}
	follow(t, connect("other"), client.StreamOptions{Endpoint: id}).fails(404)
	w.do("acme", "GET", "/stream?types=Nonsense", "").faults(400)
	w.do("acme", "GET", "/stream?types=", "").faults(400)
	w.as("acme", "GET", "/stream", "").with("Last-Event-ID", "x").do().faults(400)
	w.as("acme", "GET", "/stream", "").with("Accept", "application/json").do().faults(406)
}

func TestStreamTellsWhenACursorIsTooOld(t *testing.T) {
	w, connect, _ := streamWorld(t)
	f := follow(t, connect("acme"), client.StreamOptions{})
	id := w.event("acme", "cases.closed")
	cursor := f.want(id).Cursor
	w.pass(30 * 24 * time.Hour)
	again := follow(t, connect("acme"), client.StreamOptions{After: cursor})
	next := w.event("acme", "cases.closed")
	again.want(next)
	w.pass(time.Second)
	follow(t, connect("acme"), client.StreamOptions{After: cursor}).fails(410)
}

func TestStreamsOfATenantAreBounded(t *testing.T) {
	w, connect, stop := streamWorld(t)
	var open []*followed
	for range streamsOfTenant {
		open = append(open, follow(t, connect("acme"), client.StreamOptions{Patience: -1}))
	}
	w.do("acme", "GET", "/stream", "").faults(429)
	follow(t, connect("other"), client.StreamOptions{}).leave()
	open[0].leave()
	// Its place is free once the server has seen it go.
	deadline := time.Now().Add(20 * time.Second)
	for {
		f := follow(t, connect("acme"), client.StreamOptions{Patience: -1})
		select {
		case err := <-f.ended:
			if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 429 || time.Now().After(deadline) {
				t.Fatal(err)
			}
			continue
		default:
		}
		break
	}
	stop()
	for _, f := range open[1:] {
		select {
		case err := <-f.ended:
			if _, ok := errors.AsType[*client.UnreachableError](err); !ok {
				t.Errorf("%v", err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("a stream outlives the server's stop")
		}
	}
}

func TestStreamEndsWithItsToken(t *testing.T) {
	w, connect, _ := streamWorld(t)
	text := w.do("platform", "POST", "/tokens", `{"tenant":"acme","scopes":["webhooks:read"]}`).want(201)
	w.tokens["short"] = text.text("data.token")
	f := follow(t, connect("short"), client.StreamOptions{})
	w.do("platform", "DELETE", "/tokens/"+text.text("data.id"), "").want(204)
	f.fails(401)
}

// A reader that does not read is cut off and takes no memory meanwhile: what it has
// not read stays in the store.
func TestStreamCutsOffWhoDoesNotRead(t *testing.T) {
	t.Parallel() // it takes ten seconds
	w, _, _ := streamWorld(t)
	server := httptest.NewServer(w.handler)
	defer server.Close()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+Base+"/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.tokens["acme"])
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	large := `{"type":"cases.updated","data":{"x":"` + strings.Repeat("x", 240<<10) + `"}}`
	for range 100 { // more than sockets hold
		w.do("acme", "POST", "/events", large).want(202)
	}
	log := func() bool { return strings.Contains(w.log.String(), `"route":"GET `+Base+`/stream"`) }
	deadline := time.After(time.Minute)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !log() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it is still served")
		}
	}
}
