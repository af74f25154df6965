package publish_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// ledger is an account of what tenants keep, and of a room.
type ledger struct {
	mu   sync.Mutex
	room store.Room
	of   map[int64]int64
}

func (l *ledger) Room() (store.Room, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.room, l.room != store.Room{}
}

func (l *ledger) Kept(tenant int64) (k store.Kept) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.of {
		k.All, k.Tenants = k.All+n, k.Tenants+1
	}
	k.Own = l.of[tenant]
	return k
}

// told is the code of an error, "" for none.
func told(err error) string {
	if err == nil {
		return ""
	}
	return code(err)
}

// TestWhoKeepsMostIsRefusedWhenRoomIsShort publishes for the tenant that keeps most,
// and for another one.
func TestWhoKeepsMostIsRefusedWhenRoomIsShort(t *testing.T) {
	const gib = 1 << 30
	other := posthorn.Tenant{ID: 8, Name: "other"}
	for name, c := range map[string]struct {
		room        store.Room
		bound       int64
		hog, others string // codes
		says        string
	}{
		"ample":             {room: store.Room{Free: 2 * gib, Reserve: gib}},
		"not known":         {},
		"short":             {room: store.Room{Free: 2*gib - 1, Reserve: gib}, hog: "rate_limited", says: "keeps 3.0 GiB of events, and room is short, so that no tenant may keep more than an equal share (2.0 GiB)"},
		"at the reserve":    {room: store.Room{Free: gib - 1, Reserve: gib}, hog: "unavailable", others: "unavailable"},
		"a bound":           {bound: 3 * gib, hog: "rate_limited", says: "keeps 3.0 GiB of events, and may keep 3.0 GiB"},
		"a bound, not full": {bound: 3*gib + 10_000},
	} {
		t.Run(name, func(t *testing.T) {
			refused := 0
			l := &ledger{room: c.room, of: map[int64]int64{acme.ID: 3 * gib, other.ID: gib}}
			w := newWorld(t, endpoints("*"), func(cfg *publish.Config) {
				cfg.Keeping, cfg.TenantBytes, cfg.Refused = l, c.bound, func() { refused++ }
			})
			_, err := w.send(t, event("cases.created"))
			if told(err) != c.hog || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("who keeps most is told %v, want %q", err, c.hog)
			}
			if e, ok := errors.AsType[*posthorn.Error](err); ok && e.RetryAfter == 0 {
				t.Error("no time to try again is given")
			}
			if want := map[bool]int{true: 1}[c.hog == "rate_limited"]; refused != want {
				t.Errorf("%d refusals were counted, want %d", refused, want)
			}
			_, err = w.Test(t.Context(), acme, 1, "cases.created", []byte(`{}`), nil, nil)
			if told(err) != c.hog {
				t.Errorf("a test of who keeps most is told %v, want %q", err, c.hog)
			}
			_, err = w.Publish(t.Context(), other, []publish.Event{event("cases.created")}, publish.InBatch, nil, nil)
			if told(err) != c.others {
				t.Errorf("another one is told %v, want %q", err, c.others)
			}
			// What Posthorn tells an owner is never refused for it.
			if err := w.Operational(t.Context(), acme.ID, posthorn.TypeEndpointFailing, noon, []byte(`{}`), 1, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTheOutboxOfWhoKeepsTooMuchWaits: nothing of it is refused for good, nobody looks
// for it more than once a second, and others go on.
func TestTheOutboxOfWhoKeepsTooMuchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &box{keys: map[int64][]string{}}
		l := &ledger{room: store.Room{Free: 15, Reserve: 10}, of: map[int64]int64{1: 1000, 2: 10}}
		refused := 0
		s := publish.New(publish.Config{Store: b, Lanes: &lanes{t: t}, Catalog: catalog.Builtin(), Now: func() time.Time { return noon },
			Keeping: l, Refused: func() { refused++ }})
		o := publish.Outbox{Service: s, Rows: b, Log: slog.New(slog.DiscardHandler),
			Tenant: func(_ context.Context, id int64) (posthorn.Tenant, error) {
				return posthorn.Tenant{ID: id, Name: "t"}, nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { o.Run(ctx) })
		defer running.Wait()
		defer cancel()
		for tenant := range int64(2) {
			b.add(tenant + 1)
		}
		<-time.After(10 * time.Second)
		synctest.Wait()
		if b.count(1) != 0 || b.count(2) != 1 {
			t.Errorf("%d of who keeps too much and %d of another one are published, want 0 and 1", b.count(1), b.count(2))
		}
		if refused < 2 || refused > 11 {
			t.Errorf("it was tried %d times in ten seconds", refused)
		}
		l.mu.Lock()
		l.room.Free = 20
		l.mu.Unlock()
		<-time.After(2 * time.Second)
		if b.count(1) != 1 {
			t.Error("it is not published though there is room")
		}
	})
}
