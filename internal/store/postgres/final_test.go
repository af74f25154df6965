package postgres_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/store/storetest"
)

// A late delivery stands apart from its event. One that a result holds locked keeps the
// payload, as any other does.
func TestAPayloadIsKeptWhileALateDeliveryIsOpen(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	s := c.nodeFor(c.url, 10*time.Second)
	id := c.publish(s)
	if _, err := record(s, c.result(id, posthorn.ClassOK)); err != nil {
		t.Fatal(err)
	}
	keep := store.Retention{Events: 30 * day, Payloads: day}
	storetest.Sweep(t, s, time.Now().Add(day+30*time.Minute), keep) // all of that age has its final state
	late := id + 5
	pgtest.Exec(t, c.url, `INSERT INTO posthorn.due (id, event, tenant, endpoint, run, next_at, late) SELECT $1, id, tenant, $2, 0, $3, true FROM posthorn.events`,
		int64(late), c.to.ID, time.Now().Add(100*day).UnixNano())
	locks, err := pgx.Connect(t.Context(), c.url)
	if err != nil {
		t.Fatal(err)
	}
	defer locks.Close(context.Background())
	for _, query := range []string{`BEGIN`, `SELECT FROM posthorn.due FOR UPDATE`} {
		if _, err := locks.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now().Add(3 * day)
	storetest.Sweep(t, s, now, keep)
	if _, err := s.Payload(t.Context(), id-1); err != nil {
		t.Errorf("the payload of an open delivery: %v", err)
	}
	if _, err := locks.Exec(t.Context(), `ROLLBACK`); err != nil {
		t.Fatal(err)
	}
	storetest.Sweep(t, s, now, keep)
	d, err := s.DeliveryByID(t.Context(), c.tenant.ID, late)
	if err != nil || d.Progress.State != posthorn.Expired {
		t.Errorf("%+v, %v", d.Progress, err)
	}
	if _, err := s.Payload(t.Context(), id-1); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("the payload stays: %v", err)
	}
}

// What one node's retention settles another may have in memory: it hears of it, and what
// it attempts all the same is recorded.
func TestRetentionTellsTheNodeThatHasADelivery(t *testing.T) {
	t.Parallel()
	c := newCluster(t, database(t))
	a, b := c.nodeFor(c.url, 10*time.Second), c.nodeFor(c.url, 10*time.Second)
	var told atomic.Bool
	b.Watch(func(n store.Notice) {
		if n.Kind == store.NoticeCanceled && n.Endpoint == c.to.ID {
			told.Store(true)
		}
	})
	id := c.publish(b)
	storetest.Sweep(t, a, time.Now().Add(30*day+time.Minute), store.Retention{Events: 30 * day})
	c.eventually("the node that has it was told", told.Load)
	if err := b.Park(t.Context(), []store.Hold{{ID: id}}); err != nil {
		t.Fatal(err)
	}
	if held, unheld := b.Holdings(); held != 0 || unheld != 0 {
		t.Errorf("%d are held, %d unheld", held, unheld)
	}
	rec, err := record(b, c.result(id, posthorn.ClassOK))
	if err != nil || rec.Lost || rec.Progress.State != posthorn.Succeeded {
		t.Errorf("a success that was under way: %+v, %v", rec, err)
	}
}
