package storetest

import (
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// turns are those that wait, without their ids.
func (w *world) turns() []store.Turn {
	w.Helper()
	list, err := w.s.Turns(w.Context(), 100)
	w.ok(err)
	for i := range list {
		list[i].ID = 0
	}
	return list
}

func (w *world) sameTurns(want ...store.Turn) {
	w.Helper()
	got := w.turns()
	if diff := cmp.Diff(append([]store.Turn{}, want...), append([]store.Turn{}, got...)); diff != "" {
		w.Errorf("turns (-want +got): %s", diff)
	}
}

// failing makes the endpoint fail n times now.
func (w *world) failing(to posthorn.Endpoint, n int) store.Recorded {
	w.Helper()
	var rec store.Recorded
	for range n {
		rec = w.record(w.result(w.send(to), to, 0, fails()))
	}
	return rec
}

func (w *world) warningsDue() []int64 {
	w.Helper()
	ids, err := w.s.WarningsDue(w.Context(), w.now.Add(posthorn.FailingWarning-posthorn.FailingAfter), 10)
	w.ok(err)
	return ids
}

var turnPromises = []promise{
	{"a pause is noted in the commit that brings it, until it is forgotten", func(w *world) {
		to, other := w.endpoint(), w.endpoint()
		w.failing(other, 1)
		id, late := w.send(to), w.send(to)
		gone := posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410}
		w.record(w.result(id, to, 0, gone))
		w.record(w.result(late, to, 0, gone)) // it is paused by then
		want := store.Turn{
			Type: posthorn.TypeEndpointPaused, Tenant: to.Tenant, Endpoint: to.ID, Ref: to.Ref, URL: to.URL,
			At: w.now, Reason: posthorn.PausedGone, FailingSince: w.now, Failures: 1, LastError: gone.Explain(),
		}
		w.sameTurns(want)
		list, err := w.s.Turns(w.Context(), 100)
		w.ok(err)
		w.ok(w.s.ForgetTurn(w.Context(), list[0].ID+1000))
		w.sameTurns(want)
		w.ok(w.s.ForgetTurn(w.Context(), list[0].ID))
		w.sameTurns()
		w.ok(w.s.ForgetTurn(w.Context(), list[0].ID))
	}},
	{"the warning is due after four days, noted once, and its recovery with it", func(w *world) {
		to := w.endpoint()
		since := w.now
		rec := w.failing(to, 3)
		w.now = w.now.Add(4*24*time.Hour - time.Nanosecond)
		if due := w.warningsDue(); len(due) != 0 {
			w.Errorf("due early: %v", due)
		}
		w.now = w.now.Add(time.Nanosecond)
		if due := w.warningsDue(); len(due) != 1 || due[0] != to.ID {
			w.Fatalf("due: %v", due)
		}
		for i, want := range []bool{true, false} {
			if marked, err := w.s.MarkWarned(w.Context(), to.ID, w.now); err != nil || marked != want {
				w.Errorf("MarkWarned %d: %v, %v", i, marked, err)
			}
		}
		if due := w.warningsDue(); len(due) != 0 {
			w.Errorf("due again: %v", due)
		}
		failing := store.Turn{
			Type: posthorn.TypeEndpointFailing, Tenant: to.Tenant, Endpoint: to.ID, Ref: to.Ref, URL: to.URL,
			At: w.now, FailingSince: since, Failures: 3, LastError: rec.Health.LastError,
		}
		w.sameTurns(failing)
		w.now = w.now.Add(time.Hour)
		w.record(w.result(w.send(to), to, 0, succeeds()))
		recovered := failing
		recovered.Type, recovered.At = posthorn.TypeEndpointRecovered, w.now
		w.sameTurns(failing, recovered)
		w.failing(to, 1)
		w.record(w.result(w.send(to), to, 0, succeeds())) // nobody was told of this failing
		w.sameTurns(failing, recovered)
	}},
	{"no warning is due for a paused or deleted endpoint, nor one that a user set active again", func(w *world) {
		paused, deleted, resumed := w.endpoint(), w.endpoint(), w.endpoint()
		for _, to := range []posthorn.Endpoint{paused, deleted, resumed} {
			w.failing(to, 1)
		}
		w.pause(paused)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, deleted.Ref, 0))
		w.pause(resumed)
		w.setStatus(resumed, posthorn.StatusActive)
		w.now = w.now.Add(5 * 24 * time.Hour)
		if due := w.warningsDue(); len(due) != 0 {
			w.Errorf("due: %v", due)
		}
		if marked, err := w.s.MarkWarned(w.Context(), deleted.ID, w.now); err != nil || marked {
			w.Errorf("a deleted endpoint: %v, %v", marked, err)
		}
		w.sameTurns()
	}},
	{"what operational events and tests meet is told to nobody", func(w *world) {
		to := w.endpoint()
		fail := func(kind posthorn.EventKind, a posthorn.Attempt) store.Recorded {
			e := w.event("", to)
			e.Kind = kind
			r := w.result(w.publish(e)[0].ID+1, to, 0, a)
			r.Kind = kind
			return w.record(r)
		}
		since := w.now
		rec := fail(posthorn.EventOperational, fails())
		if rec.Health.Failures != 1 || !rec.Health.FailingSince.Equal(since) || rec.Health.LastError != "" {
			w.Errorf("%+v", rec.Health)
		}
		fail(posthorn.EventTest, fails())
		w.now = w.now.Add(5 * 24 * time.Hour)
		if due := w.warningsDue(); len(due) != 0 {
			w.Errorf("due: %v", due)
		}
		rec = fail(posthorn.EventOperational, posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410})
		if rec.Paused != posthorn.PausedGone {
			w.Errorf("%+v", rec)
		}
		w.sameTurns()
	}},
}
