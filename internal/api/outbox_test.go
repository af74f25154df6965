package api

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// outboxRows is an outbox whose rows are in memory: the worlds of this package
// stand on the embedded store, which has none. The real one is tested with a node
// on PostgreSQL in internal/app.
type outboxRows struct {
	store store.Store // fails when the outbox's would, and remembers Idempotency-Keys
	mu    sync.Mutex
	rows  []store.OutboxRow // oldest first
}

func (o *outboxRows) OutboxRows(ctx context.Context, refused bool, before int64, limit int) (list []store.OutboxRow, _ error) {
	if _, err := o.store.Sending(ctx); err != nil {
		return nil, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, r := range slices.Backward(o.rows) {
		if r.RefusedAt.IsZero() != refused && (before == 0 || r.ID < before) && len(list) < limit {
			list = append(list, r)
		}
	}
	return list, nil
}

func (o *outboxRows) find(id int64) *store.OutboxRow {
	for i := range o.rows {
		if o.rows[i].ID == id {
			return &o.rows[i]
		}
	}
	return nil
}

func (o *outboxRows) OutboxByID(ctx context.Context, id int64) (store.OutboxRow, error) {
	if _, err := o.store.Sending(ctx); err != nil {
		return store.OutboxRow{}, err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if r := o.find(id); r != nil {
		return *r, nil
	}
	return store.OutboxRow{}, store.ErrNotFound
}

func (o *outboxRows) OutboxRetry(ctx context.Context, c store.Change, id int64) error {
	if err := o.store.SetSending(ctx, c, true); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	r := o.find(id)
	if r == nil {
		return store.ErrNotFound
	}
	r.RefusedAt, r.Reason = time.Time{}, ""
	return nil
}

func (o *outboxRows) OutboxDrop(ctx context.Context, c store.Change, id int64) error {
	if err := o.store.SetSending(ctx, c, true); err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	switch r := o.find(id); {
	case r == nil:
		return store.ErrNotFound
	case r.RefusedAt.IsZero():
		return store.ErrExists
	}
	o.rows = slices.DeleteFunc(o.rows, func(r store.OutboxRow) bool { return r.ID == id })
	return nil
}

// refusedRow adds a refused row and returns its id.
func (o *outboxRows) refusedRow(tenant string) string {
	o.mu.Lock()
	defer o.mu.Unlock()
	id := int64(1)
	if n := len(o.rows); n > 0 {
		id = o.rows[n-1].ID + 1
	}
	o.rows = append(o.rows, store.OutboxRow{ID: id, TenantName: tenant, Key: "move-1", Type: "cases.nonsense", At: began, RefusedAt: began,
		Reason: "The event is not valid; see errors for every fault. type is not in the catalogue."})
	return fmt.Sprint(id)
}

func TestTheOutboxIsShownRetriedAndDropped(t *testing.T) {
	w := newWorld(t)
	w.do("platform", "GET", "/outbox", "").want(200).says(`{"data":[],"next_cursor":null}`)
	first, second := w.outbox.refusedRow("acme"), w.outbox.refusedRow("acme")
	w.do("platform", "GET", "/outbox", "").want(200).says(`"id":"` + second + `","state":"refused","tenant":"acme","event_id":"move-1","type":"cases.nonsense"`).says("not in the catalogue")
	page := w.do("platform", "GET", "/outbox?limit=1", "").want(200)
	w.do("platform", "GET", "/outbox?limit=1&cursor="+page.text("next_cursor"), "").want(200).says(`"id":"` + first + `"`)
	w.do("platform", "GET", "/outbox?state=waiting", "").want(200).says(`{"data":[]`)
	w.do("platform", "GET", "/outbox?state=lost", "").faults(400)
	w.do("platform", "POST", "/outbox/"+first+"/retry", "").want(202).says(`"state":"waiting"`).says(`"reason":null`)
	w.do("platform", "GET", "/outbox?state=waiting", "").want(200).says(`"id":"` + first + `"`)
	w.do("platform", "DELETE", "/outbox/"+first, "").faults(409)
	w.do("platform", "DELETE", "/outbox/"+second, "").want(204)
	w.do("platform", "DELETE", "/outbox/"+second, "").faults(404)
	w.do("platform", "POST", "/outbox/0"+first+"/retry", "").faults(404)
}

// TestWithoutAnOutboxItIsEmpty: the embedded store has none.
func TestWithoutAnOutboxItIsEmpty(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.Outbox = nil })
	w.do("platform", "GET", "/outbox", "").want(200).says(`{"data":[],"next_cursor":null}`)
	w.do("platform", "POST", "/outbox/1/retry", "").faults(404)
	w.do("platform", "DELETE", "/outbox/1", "").faults(404)
}
