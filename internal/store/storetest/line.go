package storetest

import (
	"slices"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// set changes an endpoint's settings.
func (w *world) set(e posthorn.Endpoint, s posthorn.Settings) posthorn.Endpoint {
	w.Helper()
	e, err := w.s.UpdateSettings(w.Context(), w.change(), e.Tenant, e.Ref, 0, func(p *posthorn.Settings) error {
		*p = s
		return nil
	})
	w.ok(err)
	return e
}

func (w *world) ordered() posthorn.Endpoint {
	w.Helper()
	return w.set(w.endpoint(), posthorn.Settings{Ordered: true})
}

// lined makes all deliveries of the event join the lines of ordered endpoints.
func lined(e store.NewEvent) store.NewEvent {
	e = parked(e)
	for i := range e.Targets {
		e.Targets[i].Owned, e.Targets[i].Ordered = true, true
	}
	return e
}

// line publishes n events to an ordered endpoint and returns their deliveries.
func (w *world) line(to posthorn.Endpoint, n int) (ids []posthorn.ID) {
	w.Helper()
	for range n {
		ids = append(ids, w.publish(lined(w.event("", to)))[0].ID+1)
	}
	return ids
}

func (w *world) claimParked(e posthorn.Endpoint, limit int) (got []posthorn.ID, more bool, next time.Time) {
	w.Helper()
	work, more, next, err := w.s.ClaimParked(w.Context(), e.ID, limit)
	w.ok(err)
	return ids(work), more, next
}

// gets claims and wants those deliveries.
func (w *world) gets(e posthorn.Endpoint, limit int, wantMore bool, wantNext time.Time, want ...posthorn.ID) {
	w.Helper()
	got, more, next := w.claimParked(e, limit)
	if !slices.Equal(got, want) || more != wantMore || !next.Equal(wantNext) {
		w.Errorf("claimed %v, more %v, next %v; want %v, %v, %v", got, more, next, want, wantMore, wantNext)
	}
}

// The stores tell times by their own clock here: w.now runs with it.
var linePromises = []promise{
	{"a failed head of a line holds the rest until it is final", func(w *world) {
		to := w.ordered()
		line := w.line(to, 4)
		w.gets(to, 2, true, time.Time{}, line[0], line[1])
		rec := w.record(w.result(line[0], to, 0, fails()))
		at := w.now.Add(time.Minute)
		if !rec.Parked || !rec.Progress.NextAt.Equal(at) {
			w.Errorf("recorded %+v", rec)
		}
		w.ok(w.s.Park(w.Context(), holds(line[1])))
		w.gets(to, 10, true, at)
		head := func(of posthorn.Endpoint, want posthorn.ID, wantNext time.Time) {
			w.Helper()
			if got, next, err := w.s.LineHead(w.Context(), of.ID); err != nil || got != want || !next.Equal(wantNext) {
				w.Errorf("the line is held by %v until %v, %v; want %v, %v", got, next, err, want, wantNext)
			}
		}
		head(to, line[0], at)
		other := w.ordered()
		w.line(other, 2)
		head(other, 0, time.Time{})
		head(w.endpoint(), 0, time.Time{})
		w.now = w.now.Add(time.Hour)
		if got := w.claimDue(10); len(got) != 0 {
			w.Errorf("claimed %v past the line", ids(got))
		}
		if d := w.delivery(line[0]); d.Progress.State != posthorn.Pending || !d.Progress.NextAt.Equal(at) {
			w.Errorf("the head is %+v", d.Progress)
		}
	}},
	{"a retry by hand keeps its place in the line, and is at once for its head", func(w *world) {
		to := w.ordered()
		line := w.line(to, 3)
		w.gets(to, 1, true, time.Time{}, line[0])
		w.record(w.result(line[0], to, 0, fails()))
		if _, err := w.retry(store.RetryOrder{Delivery: line[1]}); err != nil {
			w.Errorf("a retry of the second: %v", err)
		}
		w.gets(to, 10, true, w.now.Add(time.Minute))
		w.noticed()
		if _, err := w.retry(store.RetryOrder{Delivery: line[0]}); err != nil {
			w.Errorf("a retry of the head: %v", err)
		}
		if !slices.ContainsFunc(w.noticed(), func(n store.Notice) bool { return n.Kind == store.NoticeParked && n.Endpoint == to.ID }) {
			w.Error("the lane was not told")
		}
		if got := w.claimDue(10); len(got) != 0 {
			w.Errorf("claimed %v past the line", ids(got))
		}
		w.gets(to, 10, false, time.Time{}, line...)
	}},
	{"a head whose time has come leads the line again", func(w *world) {
		to := w.ordered()
		line := w.line(to, 3)
		w.gets(to, 1, true, time.Time{}, line[0])
		r := w.result(line[0], to, 0, fails())
		r.Policy.Schedule = []time.Duration{0}
		if rec := w.record(r); !rec.Parked {
			w.Errorf("recorded %+v", rec)
		}
		w.gets(to, 10, false, time.Time{}, line...)
		for i, id := range line {
			tries := 0
			if i == 0 {
				tries = 1
			}
			if rec := w.record(w.result(id, to, tries, succeeds())); rec.Lost || rec.Parked {
				w.Errorf("recorded %+v", rec)
			}
		}
	}},
	{"tests and what is delayed stand aside of a line", func(w *world) {
		to := w.ordered()
		line := w.line(to, 1)
		w.gets(to, 1, false, time.Time{}, line[0])
		w.record(w.result(line[0], to, 0, fails()))
		held := w.now.Add(time.Minute)
		test := lined(w.event("", to))
		test.Kind = posthorn.EventTest
		tested := w.publish(test)[0].ID + 1
		delayed := w.publish(later(w.event("", to), w.now.Add(time.Second)))[0].ID + 1
		w.line(to, 1)
		w.gets(to, 10, true, held, tested)
		w.now = w.now.Add(2 * time.Second)
		got := w.claimDue(10)
		if len(got) != 1 || got[0].ID != delayed || !got[0].Aside {
			w.Fatalf("claimed %+v", got)
		}
		// A failure leaves them aside.
		if rec := w.record(w.result(delayed, to, 0, fails())); rec.Parked {
			w.Errorf("recorded %+v", rec)
		}
		r := w.result(tested, to, 0, fails())
		r.Kind = posthorn.EventTest
		if rec := w.record(r); rec.Parked {
			w.Errorf("recorded %+v", rec)
		}
	}},
	{"what waits joins the line when the endpoint becomes ordered, and leaves it after", func(w *world) {
		to := w.endpoint()
		old := w.send(to)
		w.record(w.result(old, to, 0, fails()))
		at := w.now.Add(time.Minute)
		delayed := w.publish(later(w.event("", to), w.now.Add(time.Second)))[0].ID + 1
		flying := w.send(to)
		to = w.set(to, posthorn.Settings{Ordered: true})
		line := w.line(to, 2)
		// One that was under way joins it as well.
		if rec := w.record(w.result(flying, to, 0, fails())); !rec.Parked {
			w.Errorf("recorded %+v", rec)
		}
		w.gets(to, 10, true, at)
		w.now = w.now.Add(time.Hour)
		if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{delayed}) {
			w.Errorf("claimed %v, want what is delayed", got)
		}
		to = w.set(to, posthorn.Settings{})
		w.gets(to, 10, false, at, line...)
		if got := ids(w.claimDue(10)); len(got) != 2 || got[0] != old || got[1] != flying {
			w.Errorf("claimed %v, want what waits again", got)
		}
	}},
	{"an owned lane that is not ordered gives what failed its time", func(w *world) {
		to := w.set(w.endpoint(), posthorn.Settings{RatePerSecond: 5})
		e := lined(w.event("", to))
		e.Targets[0].Ordered = false
		a := w.publish(e)[0].ID + 1
		w.gets(to, 10, false, time.Time{}, a)
		if rec := w.record(w.result(a, to, 0, fails())); rec.Parked {
			w.Errorf("recorded %+v", rec)
		}
		w.now = w.now.Add(time.Hour)
		if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{a}) {
			w.Errorf("claimed %v", got)
		}
	}},
	{"a target tells whether the lane is owned", func(w *world) {
		for _, s := range []posthorn.Settings{{}, {Ordered: true}, {RatePerSecond: 1}, {MaxInFlight: 1}, {TimeoutSeconds: 3}} {
			to := w.set(w.endpoint(), s)
			set, err := w.s.EndpointSet(w.Context(), w.tenant.ID)
			w.ok(err)
			target, err := w.s.Target(w.Context(), to.ID)
			w.ok(err)
			if want := s.OwnedLane(set.Shared); target.Owned != want {
				w.Errorf("%+v: owned %v", s, target.Owned)
			}
		}
	}},
	{"nothing is claimed of a deleted ordered endpoint, and all is canceled", func(w *world) {
		to := w.ordered()
		line := w.line(to, 3)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		w.gets(to, 10, false, time.Time{})
		if n := w.sweep(store.Retention{Events: time.Hour}); n.Canceled != len(line) {
			w.Errorf("swept %+v", n)
		}
		w.shown(line[1], "canceled", posthorn.ReasonEndpointDeleted)
	}},
}
