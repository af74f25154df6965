package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store"
)

// hooked is a connection that calls fn when the first part of a body is written.
type hooked struct {
	*httptest.ResponseRecorder
	once sync.Once
	fn   func()
	seen int // bytes that had been written then
}

func (h *hooked) Write(b []byte) (int, error) {
	h.once.Do(func() { h.seen = h.Body.Len() + len(b); h.fn() })
	return h.ResponseRecorder.Write(b)
}

// cut serves the request and reports whether the connection was cut.
func (c *call) cut(h *hooked) (cut bool) {
	defer func() {
		if v := recover(); v != nil {
			if cut = v == http.ErrAbortHandler; !cut {
				panic(v)
			}
		}
	}()
	h.ResponseRecorder = httptest.NewRecorder()
	c.w.handler.ServeHTTP(h, c.request)
	return false
}

// An export that is under way ends, without its last line and with a connection that
// breaks off, when the right to read does or the node stops.
func TestAnExportEndsWithTheRightToRead(t *testing.T) {
	w := newWorld(t, serves)
	large := `{"type":"cases.updated","data":{"x":"` + strings.Repeat("x", 1000) + `"}}`
	type made struct {
		tenant, token, ref, export string
	}
	// prepare makes a tenant with more than two pages of events, a token and an export.
	prepare := func(name string, more string) made {
		w.do("platform", "POST", "/tenants", `{"name":"`+name+`"}`).want(201)
		m := made{tenant: name, token: name}
		token := w.do("platform", "POST", "/tokens", `{"tenant":"`+name+`","scopes":["webhooks:read"]`+more+`}`).want(201)
		w.tokens[name], m.ref = token.text("data.token"), token.text("data.id")
		batch := `{"events":[` + strings.TrimSuffix(strings.Repeat(large+",", 90), ",") + `]}`
		for range 6 {
			w.as("platform", "POST", "/events/batch", batch).with("Posthorn-Tenant", name).do().want(202)
		}
		w.pass(time.Second)
		m.export = w.as("platform", "POST", "/exports", `{}`).with("Posthorn-Tenant", name).do().want(201).text("data.id")
		return m
	}
	remove := func(name string) {
		w.do("platform", "DELETE", "/tenants/"+name, "").want(204)
	}
	for i, tc := range []struct {
		what     string
		more     string // of the token
		platform bool   // the platform's token is used
		ends     func(m made)
		goesOn   int // bytes at most
	}{
		{"the token is revoked", "", false, func(m made) { w.do("platform", "DELETE", "/tokens/"+m.ref, "").want(204) }, 64 << 10},
		{"the token expires", `,"expires_at":"2026-04-30T00:00:00Z"`, false, func(made) { w.pass(24*time.Hour - time.Minute) }, 512 << 10},
		{"the tenant is deleted", "", false, func(m made) { remove(m.tenant) }, 64 << 10},
		{"the tenant of a platform's token is deleted", "", true, func(m made) { remove(m.tenant) }, 64 << 10},
		{"the tenant is deleted and its name another's", "", true, func(m made) {
			remove(m.tenant)
			w.do("platform", "POST", "/tenants", `{"name":"`+m.tenant+`"}`).want(201)
		}, 64 << 10},
	} {
		m := prepare(fmt.Sprintf("t%d", i), tc.more)
		c := w.as(m.token, "GET", "/exports/"+m.export+"/content", "")
		if tc.platform {
			c = w.as("platform", "GET", "/exports/"+m.export+"/content", "").with("Posthorn-Tenant", m.tenant)
		}
		h := &hooked{fn: func() { tc.ends(m) }}
		cut := c.cut(h)
		body := h.Body.String()
		if !cut || strings.Contains(body, `{"end":`) {
			t.Errorf("%s: the connection is cut: %v; the last line is there: %v", tc.what, cut, strings.Contains(body, `{"end":`))
		}
		if more := len(body) - h.seen; more > tc.goesOn {
			t.Errorf("%s: %d bytes more were sent", tc.what, more)
		}
	}
	m := prepare("last", "")
	h := &hooked{fn: func() {}}
	if cut := w.as(m.token, "GET", "/exports/"+m.export+"/content", "").cut(h); cut || !strings.Contains(h.Body.String(), `{"end":{"endpoints":0,"events":540,`) {
		t.Errorf("nothing happened: cut %v, %d bytes", cut, h.Body.Len())
	}
}

func TestAnExportEndsWhenTheNodeStops(t *testing.T) {
	stopping := make(chan struct{})
	w := newWorld(t, func(c *Config) { c.Stopping = stopping })
	for range 251 { // more than a page
		w.event("acme", "cases.updated")
	}
	w.pass(time.Second)
	id := w.do("acme", "POST", "/exports", `{}`).want(201).text("data.id")
	h := &hooked{fn: func() { close(stopping) }}
	if cut := w.as("acme", "GET", "/exports/"+id+"/content", "").cut(h); !cut || strings.Contains(h.Body.String(), `{"end":`) {
		t.Errorf("cut: %v; it ends with %q", cut, h.Body.String()[max(0, h.Body.Len()-100):])
	}
}

// stuck is a request whose reader does not read.
type stuck struct{ begun, release, ended chan struct{} }

func (c *call) stick() stuck {
	s := stuck{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	h := &hooked{fn: func() { close(s.begun); <-s.release }}
	go func() {
		defer close(s.ended)
		c.cut(h)
	}()
	return s
}

func (s stuck) end() { close(s.release); <-s.ended }

func TestExportsOfATenantAreBoundedAndHoldNoReader(t *testing.T) {
	w := newWorld(t, serves)
	w.endpoint("acme", validEndpoint)
	w.event("acme", "cases.updated")
	w.event("other", "cases.updated")
	w.pass(time.Second)
	mine := w.do("acme", "POST", "/exports", `{}`).want(201).text("data.id")
	theirs := w.do("other", "POST", "/exports", `{}`).want(201).text("data.id")
	var under []stuck
	for _, token := range []string{"acme", "acme-read"} {
		s := w.as(token, "GET", "/exports/"+mine+"/content", "").stick()
		<-s.begun
		under = append(under, s)
	}
	got := w.do("acme", "GET", "/exports/"+mine+"/content", "").faults(429)
	if !strings.Contains(got.body, "may have 2 at a time") || got.header.Get("Retry-After") == "" {
		t.Error(got.body, got.header)
	}
	w.as("platform", "GET", "/exports/"+mine+"/content", "").with("Posthorn-Tenant", "acme").do().faults(429)
	w.do("other", "GET", "/exports/"+theirs+"/content", "").want(200)
	w.do("acme", "GET", "/stats", "").want(200) // a walk of the same tenant
	if w.store.Walks().Waiting() != 0 {
		t.Error("a slice waits for those that do not read")
	}
	for _, s := range under {
		s.end()
	}
	w.do("acme", "GET", "/exports/"+mine+"/content", "").want(200)
}

// Streams are the tenants', whatever tokens they have: when most are in use, one that
// has none gets one, and only one.
func TestStreamsAreSharedByTenant(t *testing.T) {
	w := newWorld(t)
	stream := func(tenant string) *call {
		return w.as("platform", "GET", "/stream", "").with("Posthorn-Tenant", tenant)
	}
	full := streamsInAll * 3 / 4 / streamsOfTenant
	var open []stuck
	for i := range full + 2 {
		name := fmt.Sprintf("t%d", i)
		w.do("platform", "POST", "/tenants", `{"name":"`+name+`"}`).want(201)
		for range streamsOfTenant {
			if i >= full {
				break
			}
			s := stream(name).stick()
			<-s.begun
			open = append(open, s)
		}
	}
	stream("t0").do().faults(429)
	late := fmt.Sprintf("t%d", full)
	s := stream(late).stick()
	<-s.begun
	open = append(open, s)
	if got := stream(late).do().faults(429); !strings.Contains(got.body, "Most of the 200 streams") || !strings.Contains(got.body, "the tenant has 1") {
		t.Error(got.body)
	}
	stream(fmt.Sprintf("t%d", full+1)).do().want(200) // it ends by itself: the node stops
	for _, s := range open {
		s.end()
	}
	stream("t0").do().want(200)
}

// Too many failures of its address do not keep a stream alive.
func TestAStreamEndsWithItsTokenWhateverItsAddressDid(t *testing.T) {
	w, connect, _ := streamWorld(t)
	text := w.do("platform", "POST", "/tokens", `{"tenant":"acme","scopes":["webhooks:read"]}`).want(201)
	w.tokens["short"] = text.text("data.token")
	f := follow(t, connect("short"), client.StreamOptions{Patience: -1})
	w.tokens["bad"] = "pht_nonsense"
	bad := connect("bad")
	for range 30 {
		for _, err := range bad.Endpoints(t.Context()) {
			if err == nil {
				t.Fatal("a bad token is taken")
			}
		}
	}
	w.do("platform", "DELETE", "/tokens/"+text.text("data.id"), "").want(204)
	select {
	case <-f.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

func TestAStreamOfThePlatformEndsWithTheTenant(t *testing.T) {
	w := newWorld(t, serves)
	h := &hooked{fn: func() { w.do("platform", "DELETE", "/tenants/acme", "").want(204) }}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.as("platform", "GET", "/stream", "").with("Posthorn-Tenant", "acme").cut(h)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("it goes on")
	}
}

// Of a tenant that has too many long reads waiting one more is refused, alone.
func TestTooManyLongReadsOfATenantAreRefused(t *testing.T) {
	w := newWorld(t)
	id, theirs := w.endpoint("acme", validEndpoint), w.endpoint("other", validEndpoint)
	walks, tenant := w.store.Walks(), w.tenant("acme").ID
	end, err := walks.Begin(t.Context(), tenant)
	if err != nil {
		t.Fatal(err)
	}
	var waiting sync.WaitGroup
	for range store.WalksWaiting {
		waiting.Go(func() {
			for { // what asks below takes a place for a moment
				end, err := walks.Begin(t.Context(), tenant)
				if err == nil {
					end()
				}
				if err != store.ErrBusy {
					return
				}
			}
		})
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for err = nil; err != store.ErrBusy; { // until all of them wait
		_, err = walks.Begin(gone, tenant)
	}
	const dry = `{"since":"2026-04-29T00:00:00Z","dry_run":true}`
	for path, body := range map[string]string{
		"/endpoints/" + id + "/replays":        dry,
		"/endpoints/" + id + "/cancel-pending": `{"dry_run":true}`,
		"/endpoints/" + id + "/filter/test":    `{"filter":"true"}`,
	} {
		got := w.do("acme", "POST", path, body).faults(429)
		if !strings.Contains(got.body, "long reads") || got.header.Get("Retry-After") == "" {
			t.Error(got.body, got.header)
		}
	}
	w.do("acme", "GET", "/stats", "").faults(429)
	w.do("other", "POST", "/endpoints/"+theirs+"/replays", dry).want(200)
	w.do("acme", "GET", "/events", "").want(200)
	w.do("acme", "GET", "/endpoints/"+id+"/stats", "").want(200)
	end()
	waiting.Wait()
	w.do("acme", "POST", "/endpoints/"+id+"/replays", dry).want(200)
}
