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

// outboxPage is how many rows are read at a time, outboxAtOnce the tenants whose rows
// are published side by side.
const (
	outboxPage   = 500
	outboxAtOnce = 64
)

// Outbox publishes what other programs left in the database.
type Outbox struct {
	Service *Service
	Rows    store.Outbox
	// Tenant finds a tenant by its internal id.
	Tenant func(ctx context.Context, id int64) (posthorn.Tenant, error)
	Log    *slog.Logger
}

// Run publishes committed rows, of each tenant oldest first, until ctx ends. Tenants do
// not wait for each other: each has its own turn, and one whose turn takes long is left
// out of what is looked for meanwhile. What is refused stays with its reason; what cannot
// be stored now is tried again.
func (o *Outbox) Run(ctx context.Context) {
	turns := outboxTurns{busy: map[int64]time.Time{}, room: make(chan struct{}, outboxAtOnce), ended: make(chan struct{}, 1)}
	defer turns.running.Wait()
	ahead, troubled := false, false
	for wait := outboxSoon; ctx.Err() == nil; {
		var err error
		if !ahead {
			err = o.Rows.OutboxAhead(ctx, o.Service.cfg.Retention/2)
			ahead = err == nil
		}
		found := 0
		if err == nil {
			found, err = o.sweep(ctx, &turns)
		}
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if !troubled {
				o.Log.Warn("the outbox cannot be published now; trying again", "err", err)
			}
			wait = outboxFault
		case found > 0 || troubled || turns.taken():
			wait = outboxSoon // who adds to an outbox that is not empty wakes nobody
		default:
			wait = min(2*wait, outboxIdle)
		}
		troubled = err != nil
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-turns.ended:
		case <-o.Rows.OutboxChanged():
			if err != nil { // the wake-up is no reason to hurry then
				<-timer.C
			}
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// outboxTurns are the tenants whose rows are being published, or could not be and rest.
type outboxTurns struct {
	running sync.WaitGroup
	room    chan struct{}
	ended   chan struct{} // a turn is over; holds one

	mu   sync.Mutex
	busy map[int64]time.Time // zero, or until when it rests
}

// others returns the tenants that are not to be looked for now.
func (t *outboxTurns) others() (ids []int64) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, until := range t.busy {
		if !until.IsZero() && !now.Before(until) {
			delete(t.busy, id)
			continue
		}
		ids = append(ids, id)
	}
	return ids
}

// taken reports whether there are any.
func (t *outboxTurns) taken() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.busy) > 0
}

func (t *outboxTurns) begin(id int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.busy[id] = time.Time{}
}

// end ends a tenant's turn; one whose rows could not be published rests.
func (t *outboxTurns) end(id int64, failed bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if delete(t.busy, id); failed {
		t.busy[id] = time.Now().Add(outboxFault)
		return
	}
	select {
	case t.ended <- struct{}{}:
	default:
	}
}

// sweep has everything published that waits of tenants that have no turn now, each
// once.
func (o *Outbox) sweep(ctx context.Context, turns *outboxTurns) (found int, err error) {
	var had []int64
	for {
		rows, err := o.Rows.OutboxWaiting(ctx, append(turns.others(), had...), outboxPage)
		if err != nil || len(rows) == 0 {
			return found, err
		}
		found += len(rows)
		for len(rows) > 0 {
			id := rows[0].Tenant
			end := slices.IndexFunc(rows, func(r store.OutboxRow) bool { return r.Tenant != id })
			if end < 0 {
				end = len(rows)
			}
			had = append(had, id)
			select {
			case turns.room <- struct{}{}:
			case <-ctx.Done():
				return found, nil
			}
			o.turn(ctx, turns, id, rows[:end])
			rows = rows[end:]
		}
	}
}

// turn begins to publish rows of one tenant.
func (o *Outbox) turn(ctx context.Context, turns *outboxTurns, id int64, rows []store.OutboxRow) {
	turns.begin(id)
	turns.running.Go(func() {
		err := o.tenant(ctx, id, rows)
		if err != nil && err != errNoRoom && ctx.Err() == nil {
			o.Log.Warn("a tenant's events in the outbox cannot be published now; trying again", "tenant", rows[0].TenantName, "err", err)
		}
		turns.end(id, err != nil)
		<-turns.room
	})
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
		if refused.RetryAfter >= roomRetry {
			return errNoRoom
		}
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
