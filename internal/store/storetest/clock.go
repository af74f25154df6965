package storetest

import (
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// aheadBy is how far a clock is wrong in what follows.
var aheadBy = []time.Duration{time.Hour, day, 32 * day}

var clockPromises = []promise{
	{"nothing is judged by its age before the clock did not jump for an hour", func(w *world) {
		to := w.endpoint()
		w.send(to)
		w.now = w.now.Add(32 * day)
		for ran := time.Duration(0); ran < store.SureAfter; ran += 10 * time.Minute {
			if got := sweepOnce(w, w.s, w.now, store.Retention{Events: 30 * day, Ran: ran}); got != (store.Swept{}) {
				w.Fatalf("after %s: %+v", ran, got)
			}
		}
		if got := sweepOnce(w, w.s, w.now, store.Retention{Events: 30 * day, Ran: store.SureAfter}); got.Expired != 1 || got.Events != 0 {
			w.Errorf("after an hour: %+v", got)
		}
	}},
	{"nothing is deleted before its final state stood for an hour of a running service", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		w.now = w.now.Add(32 * day)
		keep := store.Retention{Events: 30 * day}
		for keep.Ran = store.SureAfter; keep.Ran < store.SureAfter+store.ExpiredShown; keep.Ran += 5 * time.Minute {
			sweepOnce(w, w.s, w.now, keep)
			w.shown(id, "expired", posthorn.ReasonRetention)
		}
		if got := sweepOnce(w, w.s, w.now, keep); got.Events != 1 || got.Deliveries != 1 {
			w.Errorf("an hour later: %+v", got)
		}
	}},
	{"a clock that jumps has the hour begin again", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		w.now = w.now.Add(32 * day)
		keep := store.Retention{Events: 30 * day, Ran: store.SureAfter}
		sweepOnce(w, w.s, w.now, keep)
		w.shown(id, "expired", posthorn.ReasonRetention)
		for keep.Ran = 0; keep.Ran < store.SureAfter+store.ExpiredShown; keep.Ran += 5 * time.Minute {
			sweepOnce(w, w.s, w.now, keep)
			w.shown(id, "expired", posthorn.ReasonRetention)
		}
		if got := sweepOnce(w, w.s, w.now, keep); got.Events != 1 {
			w.Errorf("at last: %+v", got)
		}
	}},
	{"what was asked for is deleted whatever the clock does", func(w *world) {
		to := w.endpoint()
		w.send(to)
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), w.tenant.ID))
		if got := sweepOnce(w, w.s, w.now, store.Retention{Events: 30 * day}); got.Canceled != 1 || got.Events != 1 {
			w.Errorf("%+v", got)
		}
	}},
	{"what failed by a clock that was ahead waits no longer than its wait", func(w *world) {
		for _, ahead := range aheadBy {
			to := w.endpoint()
			early := w.now
			w.now = early.Add(ahead)
			id := w.send(to)
			rec := w.record(w.result(id, to, 0, fails()))
			wait := rec.Progress.NextAt.Sub(w.now)
			w.now = early.Add(time.Minute)
			if n, err := w.s.ReadBack(w.Context(), w.now, exact); err != nil || n != 1 {
				w.Errorf("%s: %d are read back, %v", ahead, n, err)
			}
			due := w.now.Add(wait)
			for range 3 { // again it changes nothing
				w.now = w.now.Add(wait / 4)
				if n, err := w.s.ReadBack(w.Context(), w.now, exact); err != nil || n != 0 {
					w.Errorf("%s: again %d are read back, %v", ahead, n, err)
				}
				if work := w.claimDue(10); len(work) != 0 {
					w.Errorf("%s: due after %s, not %s", ahead, w.now.Sub(due)+wait, wait)
				}
			}
			w.now = due
			work := w.claimDue(10)
			if len(work) != 1 || work[0].ID != id {
				w.Errorf("%s: after its wait %v is due", ahead, ids(work))
			}
			for i := range work {
				w.record(w.result(work[i].ID, to, 1, succeeds()))
			}
		}
	}},
	{"what waits by a clock that was right is not read back", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		rec := w.record(w.result(id, to, 0, fails()))
		later := w.publish(later(w.event("", to), w.now.Add(10*day)))[0].ID + 1
		other := w.endpoint()
		w.now = w.now.Add(time.Hour)
		w.record(w.result(w.send(other), other, 0, succeeds()))
		w.now = rec.Progress.NextAt.Add(-time.Second)
		if n, err := w.s.ReadBack(w.Context(), w.now, exact); err != nil || n != 0 {
			w.Errorf("%d are read back, %v", n, err)
		}
		if d := w.delivery(id); !d.Progress.NextAt.Equal(rec.Progress.NextAt) {
			w.Errorf("due at %s, not %s", d.Progress.NextAt, rec.Progress.NextAt)
		}
		if d := w.delivery(later); d.Progress.NextAt.Before(w.now.Add(9 * day)) {
			w.Errorf("what was asked for later is due at %s", d.Progress.NextAt)
		}
	}},
	{"what is read back keeps to the endpoint's own schedule", func(w *world) {
		to := w.endpoint()
		_, err := w.s.UpdateSettings(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(s *posthorn.Settings) error {
			s.RetrySchedule = []int{600, 600}
			return nil
		})
		w.ok(err)
		early := w.now
		w.now = early.Add(day)
		id := w.send(to)
		r := w.result(id, to, 0, fails())
		r.Policy = exact.For(posthorn.Settings{RetrySchedule: []int{600, 600}})
		w.record(r)
		w.now = early
		_, err = w.s.ReadBack(w.Context(), w.now, exact)
		w.ok(err)
		if d := w.delivery(id); !d.Progress.NextAt.Equal(w.now.Add(10 * time.Minute)) {
			w.Errorf("due %s from now", d.Progress.NextAt.Sub(w.now))
		}
	}},
	{"what is read back again keeps to a schedule that was made shorter", func(w *world) {
		to := w.endpoint()
		early := w.now
		w.now = early.Add(day)
		id := w.send(to)
		r := w.result(id, to, 0, fails())
		r.Policy = exact
		r.Policy.Schedule = []time.Duration{time.Hour, time.Hour}
		w.record(r)
		w.now = early
		_, err := w.s.UpdateSettings(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(s *posthorn.Settings) error {
			s.RetrySchedule = []int{600}
			return nil
		})
		w.ok(err)
		for i, wait := range []time.Duration{time.Hour, 10 * time.Minute, 9 * time.Minute} { // the last moves nothing
			w.now = early.Add(time.Duration(i) * time.Minute)
			_, err = w.s.ReadBack(w.Context(), w.now, exact)
			w.ok(err)
			if d := w.delivery(id); !d.Progress.NextAt.Equal(w.now.Add(wait)) {
				w.Errorf("read back %d times it is due %s from now, not %s", i+1, d.Progress.NextAt.Sub(w.now), wait)
			}
		}
	}},
}
