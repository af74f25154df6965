package storetest

import (
	"errors"
	"slices"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (m *model) retryOne() {
	d := pick(m.Rand, m.deliveries)
	if d == nil {
		return
	}
	o := store.RetryOrder{Tenant: m.tenant.ID, Delivery: d.id}
	if m.IntN(2) == 0 {
		o.Held = holds(d.id)
	}
	list, err := m.s.Retry(m.Context(), m.change(), o, nil)
	var want error
	switch {
	case !d.endpoint.DeletedAt.IsZero():
		want = store.ErrGone
	case m.suspended:
		want = store.ErrSuspended
	case d.place == "owned" && o.Held == nil:
		want = store.ErrInFlight
	}
	if !errors.Is(err, want) {
		m.Fatalf("retry of %x: %v, want %v", d.id, err, want)
	}
	if want != nil {
		return
	}
	next, _ := exact.Step(d.progress, posthorn.Input{Move: posthorn.Retry, Now: m.now})
	m.move(d, next)
	d.place = "waiting"
	if list[0].Progress != d.progress {
		m.Fatalf("retried %x: %+v, want %+v", d.id, list[0].Progress, d.progress)
	}
}

func (m *model) cancelOne() {
	d := pick(m.Rand, m.deliveries)
	if d == nil {
		return
	}
	_, err := m.s.CancelDelivery(m.Context(), m.change(), m.tenant.ID, d.id, nil)
	if d.place == "" {
		m.is(err, store.ErrFinal)
		return
	}
	m.ok(err)
	m.end(d, posthorn.Cancel, posthorn.ReasonUser)
}

// replayAll replays what failed or expired at an endpoint, all of it.
func (m *model) replayAll() {
	e := pick(m.Rand, m.living())
	if e == nil {
		return
	}
	var want []posthorn.ID
	replay := &modelReplay{ended: map[posthorn.State]int{}}
	for _, d := range m.deliveries {
		if d.endpoint == e && (d.progress.State == posthorn.Failed || d.progress.State == posthorn.Expired) {
			next, _ := exact.Step(d.progress, posthorn.Input{Move: posthorn.Restart, Now: m.now})
			d.replay = nil // the one before keeps what it counted
			m.move(d, next)
			d.place, d.reason, d.replay = "owned", "", replay
			want = append(want, d.id)
		}
	}
	r := m.replay(e.Endpoint, posthorn.ReplaySelection{})
	if r.Total != len(want) {
		m.Fatalf("a replay of %d, want %d", r.Total, len(want))
	}
	if r.Total == 0 {
		return
	}
	replay.Replay = r
	m.replays = append(m.replays, replay)
	if got := ids(m.feedAll(r, 1+m.IntN(5))); !slices.Equal(got, want) {
		m.Fatalf("replayed %x, want %x", got, want)
	}
}
