package storetest

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (m *model) publishSome() {
	const backlog = 40
	p := m.publication()
	p.BacklogLimit = backlog
	stale := m.IntN(10) == 0
	if stale {
		p.SetVersion--
	}
	var targets [][]*modelEndpoint
	for range 1 + m.IntN(3) {
		e := m.event("")
		if m.IntN(3) == 0 {
			e = m.event(fmt.Sprint("key", m.IntN(20)))
			e.Hash = sha256.Sum256([]byte{byte(m.IntN(2))})
		}
		var to []*modelEndpoint
		for _, x := range m.living() {
			if m.IntN(2) == 0 {
				to = append(to, x)
				e.Targets = append(e.Targets, store.PublishTarget{Endpoint: x.ID, Parked: m.IntN(3) == 0})
			}
		}
		if m.IntN(5) == 0 {
			e.DeliverAt = m.now.Add(time.Duration(m.IntN(600)-100) * time.Second)
		}
		targets = append(targets, to)
		p.Events = append(p.Events, e)
	}
	got, err := m.s.Publish(m.Context(), p)
	if want := m.publishError(&p, stale); want != "" || err != nil {
		if fmt.Sprint(err) != want {
			m.Fatalf("publish: got error %v, want %q", err, want)
		}
		return
	}
	for i := range p.Events {
		m.accept(&p.Events[i], targets[i], got[i], backlog)
	}
}

func (m *model) eventByKey(key string) *modelEvent {
	for _, e := range m.events {
		if key != "" && e.key == key {
			return e
		}
	}
	return nil
}

func (m *model) publishError(p *store.Publication, stale bool) string {
	fresh := false
	hashes := map[string][32]byte{}
	for _, e := range p.Events {
		known := m.eventByKey(e.Key)
		hash, seen := hashes[e.Key]
		if known != nil {
			hash, seen = known.hash, true
		}
		if e.Key == "" || !seen {
			fresh = true
			hashes[e.Key] = e.Hash
		} else if hash != e.Hash {
			return (&store.EventConflict{}).Error()
		}
	}
	if fresh && stale {
		return store.ErrStale.Error()
	}
	return ""
}

func (m *model) accept(e *store.NewEvent, to []*modelEndpoint, got store.Accepted, backlog int) {
	want := store.Accepted{ID: got.ID, OccurredAt: e.OccurredAt, Deliveries: len(to), Open: min(len(to), max(0, backlog-m.open()))}
	if known := m.eventByKey(e.Key); known != nil {
		want = store.Accepted{ID: known.id, OccurredAt: known.occurred, Deliveries: known.deliveries, Repeated: true}
	}
	want.Gen = got.Gen // the store's own
	if diff := gocmp.Diff(want, got); diff != "" {
		m.Fatal("accepted: ", diff)
	}
	if got.Repeated {
		return
	}
	if got.ID <= m.last || got.ID.Time().Before(m.now) {
		m.Fatalf("event %x after %x at %v", got.ID, m.last, m.now)
	}
	m.last = got.ID + posthorn.ID(len(to))
	event := &modelEvent{id: got.ID, key: e.Key, hash: e.Hash, occurred: e.OccurredAt, deliveries: len(to)}
	m.events = append(m.events, event)
	for i, x := range to {
		d := &modelDelivery{id: got.ID + 1 + posthorn.ID(i), event: event, endpoint: x, place: "owned"}
		d.progress.NextAt = m.now
		switch {
		case i >= got.Open:
			d.place, d.progress.NextAt, d.reason = "", time.Time{}, posthorn.ReasonBacklogFull
			m.move(d, posthorn.Progress{State: posthorn.Expired})
		case e.DeliverAt.After(m.now):
			d.place, d.progress.NextAt = "waiting", e.DeliverAt
		case e.Targets[i].Parked:
			d.place = "parked"
		}
		m.deliveries = append(m.deliveries, d)
	}
}

func (m *model) in(place string) (list []*modelDelivery) {
	for _, d := range m.deliveries {
		if d.place == place {
			list = append(list, d)
		}
	}
	return list
}

var outcomes = []posthorn.Attempt{
	{Class: posthorn.ClassOK, Status: 200}, {Class: posthorn.ClassHTTPStatus, Status: 500}, {Class: posthorn.ClassTimeout},
	{Class: posthorn.ClassHTTPStatus, Status: 503, RetryAfter: 2 * time.Hour}, {Class: posthorn.ClassLocal}, {Class: posthorn.ClassHTTPStatus, Status: 410},
}

func (m *model) recordOne() {
	d := pick(m.Rand, m.in("owned"))
	if m.IntN(5) == 0 {
		d = pick(m.Rand, m.deliveries)
	}
	if d == nil {
		return
	}
	tries := d.progress.Tries
	if m.IntN(10) == 0 {
		tries--
	}
	r := m.result(d.id, d.endpoint.Endpoint, tries, pick(m.Rand, outcomes))
	r.Random = 2*m.Float64() - 1
	r.Policy.Jitter = 0.2
	got := m.record(r)
	want := store.Recorded{Lost: true}
	if tries == d.progress.Tries {
		want = m.recorded(d, &r)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		m.Fatalf("recorded %v: %s", d.id, diff)
	}
}

func (m *model) recorded(d *modelDelivery, r *store.Result) store.Recorded {
	was := d.progress
	next, _ := r.Policy.Step(d.progress, posthorn.Input{
		Move: posthorn.Attempted, Outcome: r.Attempt.Class, RetryAfter: r.Attempt.RetryAfter, Now: r.EndedAt, Random: r.Random,
	})
	m.move(d, next)
	d.place = "waiting"
	if d.progress.State.Final() {
		d.place = ""
	}
	putBack := was.Extra && d.progress.State == was.Before && was.Before != posthorn.Succeeded
	if d.progress.State != was.State && !putBack {
		d.reason = ""
	}
	e := d.endpoint
	before := e.health
	health, reason := before.ObserveKind(r.Kind, &r.Attempt, r.EndedAt)
	e.health = health
	rec := store.Recorded{Progress: d.progress, Health: health}
	rec.Recovered = r.Attempt.Succeeded() && !before.FailingSince.IsZero()
	if reason != "" && e.Active() {
		rec.Paused = reason
		e.Status = posthorn.StatusPaused
	}
	return rec
}

// move takes a delivery to where it stands now, and counts it there.
func (m *model) move(d *modelDelivery, next posthorn.Progress) {
	state := func(p posthorn.Progress) posthorn.State {
		if p.Extra { // an attempt by hand that was not made yet changes nothing
			return p.Before
		}
		return p.State
	}
	from, to := state(d.progress), state(next)
	d.progress = next
	if from == to {
		return
	}
	d.hour = m.now.Unix() / 3600
	if d.replay != nil {
		d.replay.ended[from]--
		d.replay.ended[to]++
	}
}

// end ends an open delivery without an attempt.
func (m *model) end(d *modelDelivery, move posthorn.Move, reason posthorn.Reason) {
	if d.place = ""; !d.progress.Extra {
		d.reason = reason
	}
	next, _ := exact.Step(d.progress, posthorn.Input{Move: move})
	m.move(d, next)
}

func (m *model) cancel(d *modelDelivery) { m.end(d, posthorn.Cancel, posthorn.ReasonEndpointDeleted) }

func (m *model) claimDueAll() {
	var work []store.Work
	var next time.Time
	for { // a store may bring fewer at a time; next tells to ask again
		some, at, err := m.s.ClaimDue(m.Context(), m.now, 10_000)
		m.ok(err)
		work, next = append(work, some...), at
		if len(some) == 0 || at.IsZero() || at.After(m.now) {
			break
		}
	}
	want := map[posthorn.ID]posthorn.Progress{}
	var left time.Time
	for _, d := range m.in("waiting") {
		switch {
		case d.progress.NextAt.After(m.now):
			if left.IsZero() || d.progress.NextAt.Before(left) {
				left = d.progress.NextAt
			}
		case !d.endpoint.DeletedAt.IsZero():
			m.cancel(d)
		default:
			d.place = "owned"
			want[d.id] = d.progress
		}
	}
	got := map[posthorn.ID]posthorn.Progress{}
	for _, w := range work {
		got[w.ID] = w.Progress
	}
	if diff := gocmp.Diff(want, got); diff != "" || !next.Equal(left) {
		m.Fatalf("claimed: next %v, want %v; %s", next, left, diff)
	}
	if !slices.IsSortedFunc(work, func(a, b store.Work) int { return a.Progress.NextAt.Compare(b.Progress.NextAt) }) {
		m.Fatal("what is due is not claimed earliest first")
	}
}

func (m *model) claimParkedSome() {
	e := pick(m.Rand, m.endpoints)
	if e == nil {
		return
	}
	limit := 1 + m.IntN(5)
	work, more, _, err := m.s.ClaimParked(m.Context(), e.ID, limit)
	m.ok(err)
	var want []posthorn.ID
	wantMore := false
	for _, d := range m.in("parked") {
		switch {
		case d.endpoint != e || !e.DeletedAt.IsZero():
		case len(want) == limit, m.suspended, e.Status == posthorn.StatusPaused && !d.progress.Manual:
			wantMore = true
		default:
			d.place = "owned"
			want = append(want, d.id)
		}
	}
	if !slices.Equal(ids(work), want) || more != wantMore {
		m.Fatalf("claimed %x more %v, want %x %v", ids(work), more, want, wantMore)
	}
}

func (m *model) parkSome() {
	var list []posthorn.ID
	for range m.IntN(4) {
		if d := pick(m.Rand, m.deliveries); d != nil {
			list = append(list, d.id)
			if d.place == "owned" {
				d.place = "parked"
			}
		}
	}
	m.ok(m.s.Park(m.Context(), holds(list...)))
}

func (m *model) toggle() {
	e := pick(m.Rand, m.living())
	if e == nil {
		return
	}
	if e.Status == posthorn.StatusActive {
		e.Status = posthorn.StatusPaused
	} else {
		e.Status = posthorn.StatusActive
		e.health = e.health.Resumed()
	}
	m.setStatus(e.Endpoint, e.Status)
}

func (m *model) deleteEndpoint() {
	if e := pick(m.Rand, m.living()); e != nil {
		m.ok(m.s.DeleteEndpoint(m.Context(), m.change(), m.tenant.ID, e.Ref, 0))
		e.DeletedAt = m.now
	}
}

func (m *model) suspendOrNot() {
	m.suspended = !m.suspended
	m.suspend(m.suspended)
}

const modelRetention = day

func (m *model) sweepAll() {
	m.sweep(store.Retention{Events: modelRetention})
	old := func(id posthorn.ID, age time.Duration) bool {
		return id < posthorn.MakeID(m.now.Add(-age), 0, 0)
	}
	for _, d := range m.deliveries {
		switch {
		case d.place == "":
		case !d.endpoint.DeletedAt.IsZero():
			m.cancel(d)
		case old(d.id, modelRetention):
			if d.progress.Extra || d.progress.Round > 0 { // nobody knows since when it is final
				d.event.kept = m.now.Add(store.ExpiredShown)
			}
			m.end(d, posthorn.Expire, posthorn.ReasonRetention)
		}
	}
	gone := func(e *modelEvent) bool {
		return old(e.id, modelRetention+store.ExpiredShown) && !m.now.Before(e.kept)
	}
	m.deliveries = slices.DeleteFunc(m.deliveries, func(d *modelDelivery) bool {
		if gone(d.event) {
			m.gone = append(m.gone, d)
			return true
		}
		return false
	})
	m.events = slices.DeleteFunc(m.events, gone)
}

func (m *model) restart() {
	m.ok(m.s.Close())
	m.s = m.reopen()
	for _, d := range m.in("owned") {
		d.place = "waiting"
		if d.progress.NextAt.After(m.now) {
			d.progress.NextAt = m.now
		}
	}
}
