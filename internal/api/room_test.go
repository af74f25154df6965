package api

import (
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// cramped is a store whose disk is as full as a test says.
type cramped struct {
	*roomyStore
	free *int64
}

type roomyStore struct {
	publish.Store
	store.Keeping
}

func (c cramped) Room() (store.Room, bool) { return store.Room{Free: *c.free, Reserve: 1000}, true }

// TestOneTenantsBytesRefuseNobodyElse fills the room below twice the reserve: who keeps
// most is answered 429, for the platform's token, too, and others 202 until the reserve.
func TestOneTenantsBytesRefuseNobodyElse(t *testing.T) {
	free := int64(1 << 40)
	w := newWorld(t)
	w.config.Publish = publish.New(publish.Config{Store: w.store, Lanes: idleLanes{}, Catalog: catalog.Builtin(), Now: w.now,
		Keeping: cramped{&roomyStore{w.store, w.store}, &free}})
	var err error
	if w.handler, err = New(w.config); err != nil {
		t.Fatal(err)
	}
	const event = `{"type":"cases.updated","data":{}}`
	large := `{"type":"cases.updated","data":{"text":"` + strings.Repeat("x", 10_000) + `"}}`
	w.as("acme", "POST", "/events", large).with("Idempotency-Key", "k1").do().want(202)
	w.do("other", "POST", "/events", event).want(202)
	free = 1999
	got := w.do("acme", "POST", "/events", event).faults(429)
	if got.header.Get("Retry-After") != "60" || !strings.Contains(got.body, "room is short") {
		t.Errorf("Retry-After %q: %s", got.header.Get("Retry-After"), got.body)
	}
	w.as("acme", "POST", "/events", large).with("Idempotency-Key", "k1").do().want(202) // what was answered is answered again
	w.do("other", "POST", "/events", event).want(202)
	w.as("platform", "POST", "/events", event).with("Posthorn-Tenant", "acme").do().faults(429)
	w.as("platform", "POST", "/events", event).with("Posthorn-Tenant", "other").do().want(202)
	free = 999
	w.do("other", "POST", "/events", event).faults(503)
	free = 2000
	w.do("acme", "POST", "/events", event).want(202)
}

// TestAKnownCallersRequestsAreAllLogged: only those of callers that are not known are
// sampled.
func TestAKnownCallersRequestsAreAllLogged(t *testing.T) {
	w := newWorld(t)
	for range 30 {
		w.do("acme", "GET", "/endpoints/wh_none", "").want(404)
		w.do("", "GET", "/endpoints/wh_none", "").want(401)
	}
	if n := strings.Count(w.log.String(), `"status":404`); n != 30 {
		t.Errorf("%d of 30 requests of a known caller are in the log", n)
	}
	if n := strings.Count(w.log.String(), `"status":401`); n != 10 {
		t.Errorf("%d of 30 requests without a token have a line, want 10", n)
	}
}
