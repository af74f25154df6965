package publish_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// box is an outbox in memory and the store that publishes from it. What it publishes
// of the slow tenant takes until release is closed.
type box struct {
	store.Outbox
	slow    int64
	release chan struct{}
	fails   bool // and then fails, once

	mu        sync.Mutex
	rows      []store.OutboxRow
	published []int64 // tenants, in order
	keys      map[int64][]string
	woken     chan struct{}
}

func (b *box) OutboxAhead(context.Context, time.Duration) error { return nil }
func (b *box) OutboxChanged() <-chan struct{}                   { return b.woken }

func (b *box) OutboxWaiting(_ context.Context, but []int64, limit int) (rows []store.OutboxRow, _ error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range b.rows {
		if !slices.Contains(but, r.Tenant) && len(rows) < limit {
			rows = append(rows, r)
		}
	}
	slices.SortStableFunc(rows, func(x, y store.OutboxRow) int { return int(x.Tenant - y.Tenant) })
	return rows, nil
}

func (b *box) EndpointSet(context.Context, int64) (store.EndpointSet, error) {
	return store.EndpointSet{Version: 1}, nil
}

func (b *box) Publish(_ context.Context, p store.Publication) ([]store.Accepted, error) {
	if p.Tenant == b.slow {
		<-b.release
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.Tenant == b.slow && b.fails {
		b.fails = false
		return nil, store.ErrUnavailable
	}
	b.rows = slices.DeleteFunc(b.rows, func(r store.OutboxRow) bool { return slices.Contains(p.Outbox, r.ID) })
	for i := range p.Events {
		b.published = append(b.published, p.Tenant)
		b.keys[p.Tenant] = append(b.keys[p.Tenant], p.Events[i].Key)
	}
	return commitAll(p), nil
}

// add appends an event of a tenant, and wakes only who has an empty outbox.
func (b *box) add(tenant int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := int64(len(b.rows) + len(b.published) + 1)
	b.rows = append(b.rows, store.OutboxRow{ID: id, Tenant: tenant, Key: fmt.Sprintf("k%04d", id), Type: "cases.updated", Data: []byte(`{}`), At: noon})
}

func (b *box) count(tenant int64) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, t := range b.published {
		if t == tenant {
			n++
		}
	}
	return n
}

// While one tenant's events take their time, and fail then, those of others go on, the
// ones that come later too.
func TestNobodyWaitsForASlowTenantsOutbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &box{slow: 1, release: make(chan struct{}), fails: true, keys: map[int64][]string{}}
		s := publish.New(publish.Config{Store: b, Lanes: &lanes{t: t}, Catalog: catalog.Builtin(), Now: func() time.Time { return noon }})
		o := publish.Outbox{Service: s, Rows: b, Log: slog.New(slog.DiscardHandler),
			Tenant: func(_ context.Context, id int64) (posthorn.Tenant, error) {
				return posthorn.Tenant{ID: id, Name: "t"}, nil
			}}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { o.Run(ctx) })
		defer running.Wait()
		defer cancel()
		for range 600 { // more than a look brings
			b.add(1)
		}
		for range 10 {
			for tenant := int64(2); tenant < 5; tenant++ {
				b.add(tenant)
			}
			<-time.After(200 * time.Millisecond)
		}
		for tenant := int64(2); tenant < 5; tenant++ {
			if n := b.count(tenant); n != 10 {
				t.Errorf("%d of 10 events of tenant %d are published beside a slow one", n, tenant)
			}
		}
		if n := b.count(1); n != 0 {
			t.Errorf("%d of the slow one are", n)
		}
		close(b.release)
		<-time.After(time.Minute)
		if n := b.count(1); n != 600 {
			t.Errorf("%d of 600 of the slow one are published in the end", n)
		}
		if !slices.IsSorted(b.keys[1]) {
			t.Error("not in order")
		}
	})
}
