package storetest

import (
	"slices"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var recordPromises = []promise{
	{"an acknowledged attempt finishes the delivery", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		a := posthorn.Attempt{
			Class: posthorn.ClassOK, Status: 202, Duration: 1234 * time.Microsecond,
			Timings: posthorn.Timings{DNS: time.Millisecond, FirstByte: 5 * time.Millisecond},
			Headers: []posthorn.Header{{Name: "Server", Value: "nginx"}}, Snippet: []byte("ok"), BodyNote: "truncated",
		}
		rec := w.record(w.result(id, to, 0, a))
		if rec.Lost || rec.Progress.State != posthorn.Succeeded || !rec.Health.LastSuccess.Equal(w.now) {
			w.Errorf("recorded %+v", rec)
		}
		d := w.delivery(id)
		a.At, a.Number = w.now, 1
		if diff := cmp.Diff([]posthorn.Attempt{a}, d.Attempts); diff != "" {
			w.Error(diff)
		}
		if d.Shown() != "succeeded" || d.Progress.Tries != 1 || !d.Progress.NextAt.IsZero() {
			w.Errorf("%+v", d)
		}
	}},
	{"a failed attempt waits for the schedule, then the delivery is failed", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		for i, wait := range exact.Schedule {
			rec := w.record(w.result(id, to, i, fails()))
			if want := w.now.Add(wait); !rec.Progress.NextAt.Equal(want) {
				w.Fatalf("attempt %d: next at %v, want %v", i+1, rec.Progress.NextAt, want)
			}
			w.now = w.now.Add(wait)
			work := w.claimDue(10)
			if len(work) != 1 {
				w.Fatalf("claimed %d", len(work))
			}
			if diff := cmp.Diff(rec.Progress, work[0].Progress); diff != "" {
				w.Error(diff)
			}
		}
		rec := w.record(w.result(id, to, 3, fails()))
		if rec.Progress.State != posthorn.Failed {
			w.Errorf("%+v", rec.Progress)
		}
		w.shown(id, "failed", "")
		w.now = w.now.Add(48 * time.Hour)
		if got := w.claimDue(1); len(got) != 0 {
			w.Error("a failed delivery was claimed")
		}
	}},
	{"a result that was written before is lost", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		r := w.result(id, to, 0, fails())
		w.record(r)
		if rec := w.record(r); !rec.Lost {
			w.Errorf("%+v", rec)
		}
		unknown := w.result(4711, to, 0, fails())
		if rec := w.record(unknown); !rec.Lost {
			w.Errorf("%+v", rec)
		}
		if d := w.delivery(id); len(d.Attempts) != 1 {
			w.Errorf("%d attempts", len(d.Attempts))
		}
	}},
	{"of two results of one attempt only one is written", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		var mu sync.Mutex
		lost := 0
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				rec, err := record(w.s, w.result(id, to, 0, fails()))
				if err != nil {
					w.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if rec.Lost {
					lost++
				}
			})
		}
		wg.Wait()
		if lost != 7 {
			w.Errorf("%d of 8 were lost", lost)
		}
	}},
	{"a late success makes a canceled delivery succeeded, a late failure does not", func(w *world) {
		to := w.endpoint()
		a, b := w.send(to), w.send(to)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, to.Ref, 0))
		w.sweep(store.Retention{})
		w.shown(a, "canceled", posthorn.ReasonEndpointDeleted)
		w.record(w.result(a, to, 0, succeeds()))
		w.record(w.result(b, to, 0, fails()))
		w.shown(a, "succeeded", "")
		w.shown(b, "canceled", posthorn.ReasonEndpointDeleted)
		if d := w.delivery(b); len(d.Attempts) != 1 {
			w.Errorf("the late failure is not in the log: %+v", d)
		}
	}},
	{"of many attempts the first ten and the last forty are kept", func(w *world) {
		to := w.endpoint()
		id := w.send(to)
		local := posthorn.Attempt{Class: posthorn.ClassLocal, Detail: "too many open files"}
		for i := range 60 {
			w.record(w.result(id, to, i, local))
			w.now = w.now.Add(exact.LocalRetry)
			w.claimDue(1)
		}
		var got, want []int
		for _, a := range w.delivery(id).Attempts {
			got = append(got, a.Number)
		}
		for i := 1; i <= 60; i++ {
			if i <= 10 || i > 20 {
				want = append(want, i)
			}
		}
		if !slices.Equal(got, want) {
			w.Errorf("kept %v", got)
		}
	}},
	{"a 410 pauses the endpoint, once", func(w *world) {
		to := w.endpoint()
		a, b := w.send(to), w.send(to)
		w.noticed()
		gone := posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410}
		rec := w.record(w.result(a, to, 0, gone))
		if rec.Paused != posthorn.PausedGone {
			w.Fatalf("%+v", rec)
		}
		want := []store.Notice{{Kind: store.NoticeEndpoint, Tenant: w.tenant.ID, Endpoint: to.ID}}
		if diff := cmp.Diff(want, w.noticed()); diff != "" {
			w.Error(diff)
		}
		e, err := w.s.EndpointByRef(w.Context(), w.tenant.ID, to.Ref)
		w.ok(err)
		if e.Status != posthorn.StatusPaused || e.PausedReason != posthorn.PausedGone || !e.PausedAt.Equal(w.now) || e.Version != to.Version+1 {
			w.Errorf("%+v", e)
		}
		if rec := w.record(w.result(b, to, 0, gone)); rec.Paused != "" {
			w.Error("paused twice")
		}
		w.shown(a, posthorn.Held, "")
	}},
	{"five days of failures pause the endpoint, a success ends the period", func(w *world) {
		to := w.endpoint()
		if marked, err := w.s.MarkWarned(w.Context(), to.ID, w.now); err != nil || marked {
			w.Errorf("MarkWarned while nothing fails: %v, %v", marked, err)
		}
		var rec store.Recorded
		fail := func() {
			w.Helper()
			rec = w.record(w.result(w.send(to), to, 0, fails()))
		}
		for range 9 {
			fail()
		}
		w.now = w.now.Add(4 * 24 * time.Hour)
		rec = w.record(w.result(w.send(to), to, 0, succeeds()))
		if !rec.Recovered || rec.Health.Failures != 0 {
			w.Errorf("%+v", rec)
		}
		since := w.now
		for range 9 {
			fail()
		}
		if rec.Health.Failures != 9 || !rec.Health.FailingSince.Equal(since) {
			w.Errorf("%+v", rec.Health)
		}
		w.now = w.now.Add(posthorn.FailingAfter)
		if marked, err := w.s.MarkWarned(w.Context(), to.ID, w.now); err != nil || !marked {
			w.Errorf("MarkWarned: %v, %v", marked, err)
		}
		if marked, err := w.s.MarkWarned(w.Context(), to.ID, w.now); err != nil || marked {
			w.Errorf("MarkWarned again: %v, %v", marked, err)
		}
		fail()
		if rec.Paused != posthorn.PausedFailing {
			w.Errorf("%+v", rec)
		}
		w.setStatus(to, posthorn.StatusActive)
		h, _, _, err := w.s.EndpointHealth(w.Context(), to.ID, 10)
		w.ok(err)
		if want := rec.Health.Resumed(); h != want {
			w.Errorf("health after resuming %+v, want %+v", h, want)
		}
	}},
	{"Close writes the results that wait", func(w *world) {
		to := w.endpoint()
		var ids []posthorn.ID
		for range 300 {
			ids = append(ids, w.send(to))
		}
		var mu sync.Mutex
		written := 0
		for _, id := range ids {
			w.s.Record(w.result(id, to, 0, succeeds()), func(rec store.Recorded, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err == nil && !rec.Lost {
					written++
				}
			})
		}
		w.ok(w.s.Close())
		if written != len(ids) {
			w.Errorf("%d of %d written", written, len(ids))
		}
	}},
	{"tests change no health", func(w *world) {
		to := w.endpoint()
		e := w.event("", to)
		e.Kind = posthorn.EventTest
		id := w.publish(e)[0].ID + 1
		r := w.result(id, to, 0, posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 410})
		r.Kind = posthorn.EventTest
		if rec := w.record(r); rec.Paused != "" || rec.Health != (posthorn.Health{}) {
			w.Errorf("%+v", rec)
		}
	}},
}
