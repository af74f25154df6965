package lane

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// memory is a store for stories about the engine alone. It checks what the
// engine must never do: claim what is owned, record what it does not own.
type memory struct {
	t      *testing.T
	commit time.Duration // how long a commit takes
	// chance, if set, says how long each takes instead.
	chance func() time.Duration
	shared bool // as if others served it too

	mu         sync.Mutex
	lastID     posthorn.ID
	gen        uint64                                       // of the last hold
	live       map[store.Hold]bool                          // what the engine holds; true once the store failed at its end, or the engine had stopped
	engine     *Engine                                      // that has them
	suspended  map[int64]bool                               // tenants
	may        func(ctx context.Context, h store.Hold) bool // MayAttempt; may let time pass
	rows       map[posthorn.ID]*row
	targets    map[int64]*store.Target
	off        bool // sending
	fail       bool // Record and Park fail
	outage     bool // everything does
	unreadable bool // Payload fails
	records    int
	claims     int // of what is parked
	parked     int // rows given back
	taken      int // rows claimed
	watch      func(store.Notice)
}

type row struct {
	work  store.Work
	place string // owned, waiting, parked, done
	tries []posthorn.Attempt
}

func newMemory(t *testing.T) *memory {
	return &memory{t: t, commit: time.Millisecond, rows: map[posthorn.ID]*row{}, targets: map[int64]*store.Target{}, live: map[store.Hold]bool{}, suspended: map[int64]bool{}}
}

// give has the engine hold the row. It is called with the lock held.
func (m *memory) give(r *row) store.Work {
	m.gen++
	if r.place != "owned" {
		m.taken++
	}
	r.place, r.work.Gen = "owned", m.gen
	m.live[r.work.Hold()] = false
	return r.work
}

// ended is called with the lock held when a hold ends, which it does once.
func (m *memory) ended(h store.Hold, how string) {
	if _, ok := m.live[h]; !ok {
		m.t.Errorf("the hold %v ends by %s, but the engine has none", h, how)
	}
	delete(m.live, h)
}

// failed is called with the lock held when the store could not end a hold.
func (m *memory) failed(h store.Hold) {
	if _, ok := m.live[h]; !ok {
		m.t.Errorf("the hold %v was to be ended, but the engine has none", h)
	}
	m.live[h] = true
}

// late is called after an engine was handed what the store gave. One that has stopped
// keeps it until the store is closed.
func (m *memory) late(e *Engine, h store.Hold) {
	e.mu.Lock()
	stopped := e.phase == phaseStopped
	e.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, held := m.live[h]; held && stopped {
		m.live[h] = true
	}
}

// agree waits until the engine has what the store gave to it and nothing else, in its
// queues, in flight or on the way back.
func (m *memory) agree(e *Engine) {
	m.t.Helper()
	var why string
	for range 100 {
		synctest.Wait()
		if why = m.disagree(e); why == "" {
			return
		}
		wait(time.Millisecond)
	}
	m.t.Error(why)
}

func (m *memory) disagree(e *Engine) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.engine != e || e.phase == phaseStopped {
		return ""
	}
	has := e.inFlight + e.unrecorded
	for _, l := range e.lanes {
		has += l.queued() + l.parking
		for _, q := range []*itemList{&l.queue, &l.behind, &l.manual, &l.replays} {
			for it := q.head; it != nil; it = it.next {
				if _, ok := m.live[it.work.Hold()]; !ok {
					return fmt.Sprintf("the engine keeps %v, which it does not hold", it.work.Hold())
				}
			}
		}
	}
	if has != len(m.live) {
		return fmt.Sprintf("the engine has %d deliveries and holds %d: %v", has, len(m.live), m.live)
	}
	return ""
}

// left checks that a drained engine holds nothing but what the store failed to take,
// and what came when it had stopped.
func (m *memory) left(e *Engine) {
	m.t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for h, failed := range m.live {
		if m.engine == e && !failed {
			m.t.Errorf("the drained engine never gave back %v", h)
		}
	}
}

// endpoint adds active endpoints of a tenant.
func (m *memory) endpoint(tenant int64, s posthorn.Settings, ids ...int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.targets[id] = &store.Target{Endpoint: posthorn.Endpoint{
			ID: id, Tenant: tenant, Status: posthorn.StatusActive, Settings: s, Version: 1,
		}}
	}
}

// change alters an endpoint and tells the engine before it returns.
func (m *memory) change(endpoint int64, fn func(*store.Target)) {
	m.mu.Lock()
	t := *m.targets[endpoint]
	fn(&t)
	m.targets[endpoint] = &t
	m.mu.Unlock()
	m.watch(store.Notice{Kind: store.NoticeEndpoint, Tenant: t.Endpoint.Tenant, Endpoint: endpoint})
}

// change1 alters endpoint 1 before there is an engine.
func (m *memory) change1(fn func(*store.Target)) { fn(m.targets[1]) }

func pauseIt(t *store.Target) { t.Endpoint.Status = posthorn.StatusPaused }
func resumeIt(t *store.Target) {
	t.Endpoint.Status = posthorn.StatusActive
	t.Health = t.Health.Resumed()
}
func deleteIt(t *store.Target) { t.Endpoint.DeletedAt = time.Now() }

// suspend suspends a tenant, or ends that.
func (m *memory) suspend(tenant int64, on bool) {
	m.mu.Lock()
	m.suspended[tenant] = on
	m.mu.Unlock()
	m.watch(store.Notice{Kind: store.NoticeTenant, Tenant: tenant})
}

func (m *memory) setSending(on bool) {
	m.mu.Lock()
	m.off = !on
	m.mu.Unlock()
	m.watch(store.Notice{Kind: store.NoticeSending})
}

// publish commits one delivery to the endpoint as the publish path does and
// returns its id. at is the zero time for now.
func (m *memory) publish(e *Engine, endpoint int64, at time.Time) posthorn.ID {
	m.mu.Lock()
	tenant := m.targets[endpoint].Endpoint.Tenant
	m.mu.Unlock()
	for {
		owned := m.owned(endpoint)
		s := e.Reserve(tenant, endpoint, 100)
		if owned {
			s.Release()
			s = e.ReserveParked(endpoint)
		}
		m.work()
		m.mu.Lock()
		if owned == m.targets[endpoint].Endpoint.Settings.OwnedLane(m.shared) {
			return m.insert(s, tenant, endpoint, at)
		}
		m.mu.Unlock()
		s.Release() // as a publish does that finds the settings changed
	}
}

func (m *memory) owned(endpoint int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.targets[endpoint].Endpoint.Settings.OwnedLane(m.shared)
}

// insert is called with the lock held and gives it up.
func (m *memory) insert(s Slot, tenant, endpoint int64, at time.Time) posthorn.ID {
	m.lastID++
	r := &row{place: "owned", work: store.Work{
		ID: m.lastID, Event: m.lastID, Tenant: tenant, Endpoint: endpoint, AcceptedAt: time.Now(), Size: 100,
	}}
	switch {
	case at.After(time.Now()):
		r.place, r.work.Progress.NextAt, r.work.Aside = "waiting", at, true
	case s.Parked():
		r.place = "parked"
	}
	m.rows[r.work.ID] = r
	owned := r.place == "owned"
	if owned {
		m.give(r)
	}
	w := r.work
	m.mu.Unlock()
	if owned {
		w.Body = make([]byte, 100)
		s.Accept(w)
		m.late(s.lane.e, w.Hold())
	} else {
		s.Stored()
	}
	return w.ID
}

// reopen is what a start after a crash does: owned rows wait again, and are due.
func (m *memory) reopen() {
	m.left(m.engine)
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.live)
	for _, r := range m.rows {
		if r.place == "owned" {
			if r.place, r.work.Progress.NextAt = "waiting", time.Now(); m.inLine(r) {
				r.place = "parked"
			}
		}
	}
}

// inLine is called with the lock held.
func (m *memory) inLine(r *row) bool {
	return m.targets[r.work.Endpoint].Endpoint.Settings.Ordered && !r.work.Aside
}

// settings changes an endpoint's settings as the store does.
func (m *memory) settings(endpoint int64, s posthorn.Settings) {
	m.change(endpoint, func(t *store.Target) {
		t.Endpoint.Settings = s
		t.Endpoint.SettingsVersion++
		m.targets[endpoint] = t
		for _, r := range m.rows {
			if r.work.Endpoint == endpoint && r.place == "waiting" && m.inLine(r) {
				r.place = "parked"
			}
		}
	})
}

// places counts the rows by place.
func (m *memory) places() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := map[string]int{}
	for _, r := range m.rows {
		n[r.place]++
	}
	return n
}

func (m *memory) row(id posthorn.ID) row {
	m.mu.Lock()
	defer m.mu.Unlock()
	return *m.rows[id]
}

func (m *memory) take(limit int, order func(a, b *row) int, want func(*row) bool) (w []store.Work, left []*row) {
	var all []*row
	for _, r := range m.rows {
		if want(r) {
			all = append(all, r)
		}
	}
	slices.SortFunc(all, order)
	n := min(limit, len(all))
	for _, r := range all[:n] {
		w = append(w, m.give(r))
	}
	return w, all[n:]
}

func byID(a, b *row) int { return cmp.Compare(a.work.ID, b.work.ID) }
func byTime(a, b *row) int {
	return cmp.Or(a.work.Progress.NextAt.Compare(b.work.Progress.NextAt), byID(a, b))
}

func (m *memory) ClaimDue(_ context.Context, now time.Time, limit int) ([]store.Work, time.Time, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outage {
		return nil, time.Time{}, errDisk
	}
	w, _ := m.take(limit, byTime, func(r *row) bool {
		return r.place == "waiting" && !r.work.Progress.NextAt.After(now)
	})
	var next time.Time
	for _, r := range m.rows {
		if at := r.work.Progress.NextAt; r.place == "waiting" && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	return w, next, nil
}

func (m *memory) ClaimParked(_ context.Context, endpoint int64, limit int) (w []store.Work, more bool, next time.Time, err error) {
	m.work()
	defer m.work() // what is committed meanwhile is not seen
	m.mu.Lock()
	defer m.mu.Unlock()
	m.claims++
	if m.outage {
		return nil, false, next, errDisk
	}
	target := m.targets[endpoint]
	ordered, paused := target.Endpoint.Settings.Ordered, !target.Endpoint.Active()
	var all []*row
	for _, r := range m.rows {
		if r.place == "parked" && r.work.Endpoint == endpoint {
			all = append(all, r)
		}
	}
	if !target.Endpoint.DeletedAt.IsZero() || m.suspended[target.Endpoint.Tenant] {
		return nil, len(all) > 0, next, nil
	}
	slices.SortFunc(all, byID)
	some := len(all)
	if paused {
		head := slices.IndexFunc(all, m.inLine)
		var first *row
		if head >= 0 {
			first = all[head]
		}
		all = slices.DeleteFunc(all, func(r *row) bool {
			return !r.work.Progress.Manual || m.inLine(r) && r != first
		})
	}
	var candidates []store.ParkedRow
	for _, r := range all {
		candidates = append(candidates, store.ParkedRow{Aside: r.work.Aside, Tries: r.work.Progress.Tries, NextAt: r.work.Progress.NextAt})
	}
	take, late, more, next := store.LineUp(ordered, candidates, false, time.Now(), limit)
	for _, i := range late {
		all[i].place = "waiting"
	}
	for _, i := range take {
		w = append(w, m.give(all[i]))
	}
	return w, more || paused && some > len(take)+len(late), next, nil
}

func (m *memory) ParkedEndpoints(_ context.Context, after int64, limit int) ([]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outage {
		return nil, errDisk
	}
	var ids []int64
	for _, r := range m.rows {
		id := r.work.Endpoint
		t := &m.targets[id].Endpoint
		if r.place == "parked" && id > after && t.DeletedAt.IsZero() && !m.suspended[t.Tenant] && (t.Active() || r.work.Progress.Manual) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	return ids[:min(limit, len(ids))], nil
}

func (m *memory) MayAttempt(ctx context.Context, h store.Hold) bool {
	m.mu.Lock()
	may := m.may
	m.mu.Unlock()
	return may == nil || may(ctx, h)
}

func (m *memory) Forget(holds ...store.Hold) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range holds {
		m.ended(h, "Forget")
	}
}

func (m *memory) Park(_ context.Context, holds []store.Hold) error {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range holds {
		if m.fail || m.outage {
			m.failed(h)
			continue
		}
		m.ended(h, "Park")
		if r := m.rows[h.ID]; r.place == "owned" && r.work.Gen == h.Gen {
			r.place = "parked"
			m.parked++
		}
	}
	if m.fail || m.outage {
		return errDisk
	}
	return nil
}

func (m *memory) Payload(context.Context, posthorn.ID) ([]byte, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outage || m.unreadable {
		return nil, errDisk
	}
	return make([]byte, 100), nil
}

func (m *memory) Record(r store.Result, done func(store.Recorded, error)) {
	go func() {
		m.work()
		rec, err := m.record(r)
		if rec.Paused != "" {
			m.watch(store.Notice{Kind: store.NoticeEndpoint, Tenant: r.Tenant, Endpoint: r.Endpoint})
		}
		done(rec, err)
	}()
}

func (m *memory) record(r store.Result) (rec store.Recorded, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records++
	h := store.Hold{ID: r.ID, Gen: r.Gen}
	if m.fail || m.outage {
		m.failed(h)
		return rec, errDisk
	}
	m.ended(h, "Record")
	row := m.rows[r.ID]
	if row.place != "owned" || row.work.Progress.Tries != r.Tries {
		m.t.Errorf("delivery %d was recorded while it was %s", r.ID, row.place)
	}
	p, err := r.Policy.Step(row.work.Progress, posthorn.Input{
		Move: posthorn.Attempted, Outcome: r.Attempt.Class, RetryAfter: r.Attempt.RetryAfter, Now: r.EndedAt, Random: r.Random,
	})
	if err != nil {
		m.t.Error(err)
	}
	row.tries = append(row.tries, r.Attempt)
	row.work.Progress = p
	switch row.place = "waiting"; {
	case p.State.Final():
		row.place = "done"
	case m.inLine(row):
		row.place, rec.Parked = "parked", true
	}
	t := *m.targets[r.Endpoint]
	t.Health, rec.Paused = t.Health.Observe(&r.Attempt, r.EndedAt)
	if rec.Paused != "" {
		t.Endpoint.Status = posthorn.StatusPaused
	}
	m.targets[r.Endpoint] = &t
	rec.Progress, rec.Health = p, t.Health
	return rec, nil
}

func (m *memory) Target(_ context.Context, endpoint int64) (store.Target, error) {
	m.work()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.targets[endpoint]
	if m.outage {
		return store.Target{}, errDisk
	}
	if p == nil {
		return store.Target{}, fmt.Errorf("endpoint %d: %w", endpoint, store.ErrNotFound)
	}
	t := *p
	t.TenantSuspended = m.suspended[t.Endpoint.Tenant]
	t.Owned = t.Endpoint.Settings.OwnedLane(m.shared)
	for _, r := range m.rows {
		t.Parked = t.Parked || r.place == "parked" && r.work.Endpoint == endpoint
	}
	return t, nil
}

func (m *memory) Sending(context.Context) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.outage {
		return false, errDisk
	}
	return !m.off, nil
}

var errDisk = errors.New("disk")

// work takes the time of a commit.
func (m *memory) work() {
	m.mu.Lock()
	d := m.commit
	if m.chance != nil {
		d = m.chance()
	}
	m.mu.Unlock()
	wait(d)
}

// wait lets virtual time pass.
func wait(d time.Duration) {
	if d > 0 {
		<-time.After(d)
	}
}

// exact is the default policy without jitter.
func exact() posthorn.Policy {
	p := posthorn.DefaultPolicy()
	p.Jitter = 0
	return p
}

// start returns a running engine that is drained when the test ends.
func start(t *testing.T, m *memory, r *receiver, c Config) *Engine {
	t.Helper()
	c.Store, c.Sender = m, r
	if c.Policy.Schedule == nil {
		c.Policy = exact()
	}
	e := New(c)
	m.watch, m.engine = func(n store.Notice) {
		if settled := e.Notice(n); settled != nil {
			settled()
		}
	}, e
	if err := e.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.agree(e)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := e.Drain(ctx); err != nil {
			t.Error(err)
		}
		m.left(e)
	})
	return e
}
