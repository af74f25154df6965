package publish

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// When the outbox is looked at again: soon after something was found, for what was
// committed just then finds nobody to wake, then ever later, while nobody tells of
// any. A look at an empty one is a seek in an empty index.
const (
	outboxSoon  = 5 * time.Millisecond
	outboxIdle  = 100 * time.Millisecond
	outboxFault = time.Second
)

// outboxPage is how many rows are read and published at a time, outboxAtOnce the
// tenants whose rows are published side by side.
const (
	outboxPage   = 500
	outboxAtOnce = 16
)

// Outbox publishes what other programs left in the database.
type Outbox struct {
	Service *Service
	Rows    store.Outbox
	// Tenant finds a tenant by its internal id.
	Tenant func(ctx context.Context, id int64) (posthorn.Tenant, error)
	Log    *slog.Logger
}

// Run publishes committed rows, of each tenant oldest first, until ctx ends. What
// is refused stays with its reason; what cannot be stored now is tried again.
func (o *Outbox) Run(ctx context.Context) {
	ahead, troubled := false, false
	for wait := outboxSoon; ctx.Err() == nil; {
		var err error
		if !ahead {
			err = o.Rows.OutboxAhead(ctx, o.Service.cfg.Retention/2)
			ahead = err == nil
		}
		found := 0
		if err == nil {
			found, err = o.sweep(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !troubled {
				o.Log.Warn("the outbox cannot be published now; trying again", "err", err)
			}
			wait = outboxFault
		case found > 0 || troubled:
			wait = outboxSoon
		default:
			wait = min(2*wait, outboxIdle)
		}
		troubled = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.Rows.OutboxChanged():
			if err != nil { // the wake-up is no reason to hurry then
				<-timer.C
			}
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// sweep goes once through all that waits.
func (o *Outbox) sweep(ctx context.Context) (found int, err error) {
	for after := int64(0); ; {
		rows, err := o.Rows.OutboxWaiting(ctx, after, outboxPage)
		if err != nil || len(rows) == 0 {
			return found, err
		}
		found += len(rows)
		after = rows[len(rows)-1].ID
		if err := o.page(ctx, rows); err != nil {
			return found, err
		}
	}
}

// page publishes rows, each tenant's in order and together.
func (o *Outbox) page(ctx context.Context, rows []store.OutboxRow) error {
	var tenants []int64
	byTenant := map[int64][]store.OutboxRow{}
	for i := range rows {
		t := rows[i].Tenant
		if byTenant[t] == nil {
			tenants = append(tenants, t)
		}
		byTenant[t] = append(byTenant[t], rows[i])
	}
	var mu sync.Mutex
	var first error
	var wg sync.WaitGroup
	room := make(chan struct{}, outboxAtOnce)
	for _, t := range tenants {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			if err := o.tenant(ctx, t, byTenant[t]); err != nil {
				mu.Lock()
				defer mu.Unlock()
				first = errors.Join(first, err)
			}
		})
	}
	wg.Wait()
	return first
}

// tenant publishes rows of one tenant.
func (o *Outbox) tenant(ctx context.Context, id int64, rows []store.OutboxRow) error {
	t, err := o.Tenant(ctx, id)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return o.refuse(ctx, rows, "The tenant is not there any more.")
	case err != nil:
		return err
	}
	events := make([]Event, 0, len(rows))
	good := make([]store.OutboxRow, 0, len(rows))
	for i := range rows {
		e, err := o.Service.outboxEvent(&rows[i])
		if err != nil {
			if err := o.refuse(ctx, rows[i:i+1], reason(err)); err != nil {
				return err
			}
			continue
		}
		events, good = append(events, e), append(good, rows[i])
	}
	return o.publish(ctx, t, events, good)
}

// publish publishes rows together, or, when something in them is refused, the one
// half and then the other, until it is found out what.
func (o *Outbox) publish(ctx context.Context, t posthorn.Tenant, events []Event, rows []store.OutboxRow) error {
	if len(rows) == 0 {
		return nil
	}
	p := store.Publication{Outbox: make([]int64, len(rows))}
	for i := range rows {
		p.Outbox[i] = rows[i].ID
	}
	_, err := o.Service.publish(ctx, t, events, nil, p, nil)
	refused, ok := errors.AsType[*posthorn.Error](err)
	switch {
	case err == nil, errors.Is(err, store.ErrTaken):
		return nil
	case !ok:
		return err
	}
	switch refused.Code {
	case posthorn.RateLimited: // its turn comes; other tenants do not wait for it
		return nil
	case posthorn.Unavailable:
		return err
	case posthorn.Forbidden, posthorn.NotFound: // it is the tenant's fault, and all rows'
		return o.refuse(ctx, rows, reason(err))
	}
	if len(rows) == 1 {
		return o.refuse(ctx, rows, reason(err))
	}
	half := len(rows) / 2
	if err := o.publish(ctx, t, events[:half], rows[:half]); err != nil {
		return err
	}
	return o.publish(ctx, t, events[half:], rows[half:])
}

func (o *Outbox) refuse(ctx context.Context, rows []store.OutboxRow, why string) error {
	reasons := make(map[int64]string, len(rows))
	for i := range rows {
		reasons[rows[i].ID] = why
	}
	o.Log.Warn("events of the outbox were refused; posthorn outbox list shows them", "events", len(rows), "tenant", rows[0].TenantName, "reason", why)
	return o.Rows.OutboxRefuse(ctx, o.Service.cfg.Now(), reasons)
}

// outboxEvent reads a row as strictly as the body of a request: PostgreSQL's json
// takes duplicate names, and any depth.
func (s *Service) outboxEvent(row *store.OutboxRow) (Event, error) {
	var b []byte
	member := func(name string, value []byte) { b = slices.Concat(b, []byte(`,"`+name+`":`), value) }
	text := func(v string) []byte {
		quoted, err := json.Marshal(v)
		if err != nil {
			return []byte(`null`) // is refused as no string
		}
		return quoted
	}
	member("type", text(row.Type))
	if row.Key != "" {
		member("id", text(row.Key))
	}
	if !row.DeliverAt.IsZero() {
		member("deliver_at", text(row.DeliverAt.Format(time.RFC3339Nano)))
	}
	at := row.At
	if now := s.cfg.Now(); at.After(now) {
		at = now // the database's clock is ahead, which is no fault of the event's
	}
	member("timestamp", text(at.Format(time.RFC3339Nano)))
	member("data", row.Data)
	b[0] = '{'
	return s.ParseEvent(append(b, '}'))
}

// reason is an error in one line, as it is kept with a row.
func reason(err error) string {
	e, ok := errors.AsType[*posthorn.Error](err)
	if !ok {
		return err.Error()
	}
	parts := []string{e.Message}
	for _, f := range e.Faults {
		parts = append(parts, strings.TrimSpace(strings.TrimPrefix(f.Pointer, "/")+" "+f.Detail)+".")
	}
	const most = 1000
	text := strings.Join(parts, " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return strings.ReplaceAll(text, "\x00", "")
}
