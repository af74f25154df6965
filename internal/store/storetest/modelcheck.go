package storetest

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// view is what a user sees of a delivery.
type view struct {
	ID       posthorn.ID
	Shown    posthorn.ShownState
	Reason   posthorn.Reason
	Tries    int
	NextAt   time.Time
	Attempts int
}

func (m *model) view(d *modelDelivery) view {
	v := view{d.id, posthorn.ShownState(d.progress.State.String()), d.reason, d.progress.Tries, d.progress.NextAt, min(d.progress.Tries, 50)}
	if d.place == "" {
		return v
	}
	v.Reason = ""
	switch {
	case !d.endpoint.DeletedAt.IsZero() && d.progress.Extra:
		v.Shown, v.Reason, v.NextAt = posthorn.ShownState(d.progress.Before.String()), d.reason, time.Time{}
	case !d.endpoint.DeletedAt.IsZero():
		v.Shown, v.Reason, v.NextAt = "canceled", posthorn.ReasonEndpointDeleted, time.Time{}
	case m.suspended, d.endpoint.Status == posthorn.StatusPaused && !d.progress.Manual:
		v.Shown = posthorn.Held
	}
	return v
}

// check compares lists, counts and health.
func (m *model) check() {
	m.Helper()
	f := store.DeliveryFilter{Tenant: m.tenant.ID}
	if e := pick(m.Rand, m.endpoints); e != nil && m.IntN(2) == 0 {
		f.Endpoint = e.ID
	}
	if m.IntN(2) == 0 {
		f.State = pick(m.Rand, posthorn.ShownStates())
	}
	var want, got []view
	for _, d := range m.deliveries {
		if v := m.view(d); (f.Endpoint == 0 || d.endpoint.ID == f.Endpoint) && (f.State == "" || v.Shown == f.State) {
			want = append(want, v)
		}
	}
	slices.SortFunc(want, func(a, b view) int { return cmp.Compare(b.ID, a.ID) })
	for p := (store.Page{Limit: 1 + m.IntN(40)}); ; {
		list, next, err := m.s.Deliveries(m.Context(), f, p)
		m.ok(err)
		for _, d := range list {
			got = append(got, view{d.ID, d.Shown(), d.Reason, d.Progress.Tries, d.Progress.NextAt, len(d.Attempts)})
		}
		if p.Before = next; next == 0 {
			break
		}
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		m.Fatalf("deliveries of %+v: %s", f, diff)
	}
	m.checkCounts()
	m.checkStatistics()
	m.checkReplays()
}

// checkStatistics holds the statistics of living endpoints against a recount: each
// delivery is counted once, in the hour in which it got the final state that it has.
func (m *model) checkStatistics() {
	m.Helper()
	from, until := m.now.Add(-modelRetention).Unix()/3600, m.now.Unix()/3600+1 // older ones may be dropped
	type ends struct{ succeeded, failed, canceled, expired int }
	for _, e := range m.living() {
		want, got := map[int64]ends{}, map[int64]ends{}
		for _, d := range slices.Concat(m.deliveries, m.gone) {
			if d.endpoint != e || d.hour < from || d.hour >= until {
				continue
			}
			n := want[d.hour]
			state := d.progress.State
			if d.progress.Extra {
				state = d.progress.Before
			}
			switch state {
			case posthorn.Pending:
				continue
			case posthorn.Succeeded:
				n.succeeded++
			case posthorn.Failed:
				n.failed++
			case posthorn.Canceled:
				n.canceled++
			case posthorn.Expired:
				n.expired++
			}
			want[d.hour] = n
		}
		slots, err := m.s.Stats(m.Context(), store.StatsFilter{Tenant: m.tenant.ID, Endpoint: e.ID, From: from, Until: until, Step: 1})
		m.ok(err)
		for i := range slots {
			if n := (ends{slots[i].Succeeded, slots[i].Exhausted, slots[i].Canceled, slots[i].Expired}); n != (ends{}) {
				got[slots[i].Start] = n
			}
		}
		if !maps.Equal(want, got) {
			m.Fatalf("endpoint %d: the statistics by hour say %+v, a recount %+v", e.ID, got, want)
		}
	}
}

func (m *model) checkReplays() {
	m.Helper()
	for _, r := range m.replays {
		got, err := m.s.ReplayByRef(m.Context(), m.tenant.ID, r.Ref)
		if errors.Is(err, store.ErrNotFound) {
			continue // retention
		}
		m.ok(err)
		failed := r.ended[posthorn.Failed] + r.ended[posthorn.Canceled] + r.ended[posthorn.Expired]
		if got.Succeeded != r.ended[posthorn.Succeeded] || got.Failed != failed {
			m.Fatalf("a replay counts %d succeeded and %d failed, want %d and %d", got.Succeeded, got.Failed, r.ended[posthorn.Succeeded], failed)
		}
	}
}

func (m *model) checkCounts() {
	m.Helper()
	c, err := m.s.Counts(m.Context())
	m.ok(err)
	if c.Open != m.open() {
		m.Fatalf("%d open, want %d", c.Open, m.open())
	}
	for _, e := range m.endpoints {
		h, n, next, err := m.s.EndpointHealth(m.Context(), e.ID, 1000)
		if errors.Is(err, store.ErrNotFound) && !e.DeletedAt.IsZero() {
			continue // erased
		}
		m.ok(err)
		want, wantNext := 0, time.Time{}
		for _, d := range m.deliveries {
			if d.endpoint != e || d.place == "" {
				continue
			}
			want++
			if d.place == "waiting" && (wantNext.IsZero() || d.progress.NextAt.Before(wantNext)) {
				wantNext = d.progress.NextAt
			}
		}
		if n != want || !next.Equal(wantNext) || e.DeletedAt.IsZero() && h != e.health {
			m.Fatalf("endpoint %d: %d waiting, next %v, %+v; want %d, %v, %+v", e.ID, n, next, h, want, wantNext, e.health)
		}
	}
}
