package storetest

import (
	"cmp"
	"errors"
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
