package storetest

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var queuePromises = []promise{
	{"what a publish hands over is not claimed again", func(w *world) {
		w.send(w.endpoint())
		w.now = w.now.Add(time.Hour)
		if got := w.claimDue(10); len(got) != 0 {
			w.Errorf("claimed %v", ids(got))
		}
	}},
	{"what is to be delivered later is claimed when it is due", func(w *world) {
		to := w.endpoint()
		at := w.now.Add(time.Hour)
		e := w.publish(later(w.event("order-1", to), at))[0]
		if d := w.delivery(e.ID + 1); !d.Progress.NextAt.Equal(at) {
			w.Errorf("next attempt at %v, want %v", d.Progress.NextAt, at)
		}
		got, next, err := w.s.ClaimDue(w.Context(), at.Add(-1), 10)
		w.ok(err)
		if len(got) != 0 || !next.Equal(at) {
			w.Errorf("claimed %d, next %v", len(got), next)
		}
		got, next, err = w.s.ClaimDue(w.Context(), at, 10)
		w.ok(err)
		want := []store.Work{{
			ID: e.ID + 1, Event: e.ID, EventKey: "order-1", Type: "cases.updated", Tenant: w.tenant.ID, Endpoint: to.ID,
			Progress: posthorn.Progress{NextAt: at}, Aside: true, AcceptedAt: w.now, Size: len(w.event("order-1").Body),
		}}
		if len(got) == 1 && got[0].Body != nil { // a claim may bring it
			want[0].Body, err = w.s.Payload(w.Context(), e.ID)
			w.ok(err)
		}
		for i := range got {
			got[i].Gen = 0 // the store's own
		}
		if diff := cmp.Diff(want, got); diff != "" || !next.IsZero() {
			w.Errorf("next %v, %s", next, diff)
		}
	}},
	{"bodies that claims bring are the events' own, and small", func(w *world) {
		to := w.endpoint()
		for _, size := range []int{1, store.ClaimedBody / 2, 2 * store.ClaimedBody} {
			e := parked(w.event("", to))
			e.Body = append(e.Body, strings.Repeat(" ", size)...)
			w.publish(e)
		}
		work, _, _, err := w.s.ClaimParked(w.Context(), to.ID, 10)
		w.ok(err)
		if len(work) != 3 {
			w.Fatalf("claimed %d, want 3", len(work))
		}
		for _, one := range work {
			body, err := w.s.Payload(w.Context(), one.Event)
			w.ok(err)
			if one.Body != nil && string(one.Body) != string(body) || len(one.Body) > store.ClaimedBody || one.Size != len(body) {
				w.Errorf("a body of %d bytes, size %d, came as %d bytes: %.100s", len(body), one.Size, len(one.Body), one.Body)
			}
		}
	}},
	{"due deliveries are claimed once, earliest first, up to the limit", func(w *world) {
		to := w.endpoint()
		var events []store.NewEvent
		for i := range 10 {
			events = append(events, later(w.event("", to), w.now.Add(time.Duration(10-i)*time.Second)))
		}
		accepted := w.publish(events...)
		w.now = w.now.Add(8 * time.Second)
		var got []posthorn.ID
		for range 3 {
			work, next, err := w.s.ClaimDue(w.Context(), w.now, 3)
			w.ok(err)
			got = append(got, ids(work)...)
			if next.IsZero() {
				w.Error("no next, but some are left")
			}
		}
		var want []posthorn.ID
		for i := range 8 {
			want = append(want, accepted[9-i].ID+1)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.Error(diff)
		}
	}},
	{"parked deliveries are claimed by endpoint, oldest first", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		var want []posthorn.ID
		for range 5 {
			want = append(want, w.publish(parked(w.event("", a, b)))[0].ID+1)
		}
		w.now = w.now.Add(time.Hour)
		if got := w.claimDue(10); len(got) != 0 {
			w.Errorf("parked deliveries are due: %v", ids(got))
		}
		first, more, _, err := w.s.ClaimParked(w.Context(), a.ID, 3)
		w.ok(err)
		if !more {
			w.Error("more are left")
		}
		rest, more, _, err := w.s.ClaimParked(w.Context(), a.ID, 3)
		w.ok(err)
		if more {
			w.Error("none are left")
		}
		if diff := cmp.Diff(want, append(ids(first), ids(rest)...)); diff != "" {
			w.Error(diff)
		}
	}},
	{"a delivery given back is parked again, a finished one is left alone", func(w *world) {
		to := w.endpoint()
		a, b := w.send(to), w.send(to)
		w.record(w.result(b, to, 0, succeeds()))
		w.ok(w.s.Park(w.Context(), holds(a, b, 4711)))
		got, _, _, err := w.s.ClaimParked(w.Context(), to.ID, 10)
		w.ok(err)
		if !slices.Equal(ids(got), []posthorn.ID{a}) {
			w.Errorf("claimed %v", ids(got))
		}
		w.shown(b, "succeeded", "")
	}},
	{"a due delivery of a paused endpoint is claimed, so that it can be parked", func(w *world) {
		to := w.endpoint()
		w.publish(later(w.event("", to), w.now.Add(time.Second)))
		w.pause(to)
		w.now = w.now.Add(time.Minute)
		if got := w.claimDue(10); len(got) != 1 {
			w.Errorf("claimed %d", len(got))
		}
	}},
	{"nothing of a deleted endpoint or tenant is claimed", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		due := w.publish(later(w.event("", a, b), w.now.Add(time.Second)))[0]
		w.publish(parked(w.event("", a, b)))
		other := w.newTenant("other")
		c := w.endpointOf(other)
		p := w.publication(later(w.event("", c), w.now.Add(time.Second)), parked(w.event("", c)))
		p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
		_, err := w.s.Publish(w.Context(), p)
		w.ok(err)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, a.Ref, 0))
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), other.ID))
		w.now = w.now.Add(time.Minute)
		if got := ids(w.claimDue(10)); !slices.Equal(got, []posthorn.ID{due.ID + 2}) {
			w.Errorf("claimed %v", got)
		}
		for _, e := range []posthorn.Endpoint{a, c} {
			got, _, _, err := w.s.ClaimParked(w.Context(), e.ID, 10)
			w.ok(err)
			if len(got) != 0 {
				w.Errorf("claimed %v of a deleted endpoint", ids(got))
			}
		}
	}},
	{"endpoints with parked deliveries are listed while they may be sent to", func(w *world) {
		var live []int64
		paused, deleted := w.endpoint(), w.endpoint()
		for range 3 {
			e := w.endpoint()
			live = append(live, e.ID)
			w.publish(parked(w.event("", e, e)))
		}
		w.publish(parked(w.event("", paused, deleted)))
		w.endpoint() // has none
		w.pause(paused)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), w.tenant.ID, deleted.Ref, 0))
		got, err := w.s.ParkedEndpoints(w.Context(), 0, 2)
		w.ok(err)
		rest, err := w.s.ParkedEndpoints(w.Context(), got[len(got)-1], 10)
		w.ok(err)
		if got = append(got, rest...); !slices.Equal(got, live) {
			w.Errorf("got %v, want %v", got, live)
		}
		target, err := w.s.Target(w.Context(), live[0])
		w.ok(err)
		if !target.Parked {
			w.Error("the target does not say that deliveries are parked")
		}
	}},
	{"of several that claim at a time each delivery goes to one", func(w *world) {
		to := w.endpoint()
		at := w.now.Add(time.Second)
		for range 20 {
			var events []store.NewEvent
			for range 5 {
				events = append(events, later(w.event("", to), at), parked(w.event("", to)))
			}
			w.publish(events...)
		}
		var mu sync.Mutex
		seen := map[posthorn.ID]int{}
		count := func(work []store.Work) {
			mu.Lock()
			defer mu.Unlock()
			for _, x := range work {
				seen[x.ID]++
			}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for more := true; more; {
					due, _, err := w.s.ClaimDue(w.Context(), at, 7)
					if err != nil {
						w.Error(err)
						return
					}
					var behind []store.Work
					if behind, more, _, err = w.s.ClaimParked(w.Context(), to.ID, 7); err != nil {
						w.Error(err)
						return
					}
					count(due)
					count(behind)
					more = more || len(due) > 0
				}
			})
		}
		wg.Wait()
		if len(seen) != 200 {
			w.Errorf("%d of 200 were claimed", len(seen))
		}
		for id, n := range seen {
			if n != 1 {
				w.Errorf("%x was claimed %d times", id, n)
			}
		}
	}},
	{"open deliveries are counted", func(w *world) {
		to := w.endpoint()
		first := w.send(to)
		at := w.now.Add(time.Hour)
		w.publish(parked(w.event("", to)), later(w.event("", to), at))
		c, err := w.s.Counts(w.Context())
		w.ok(err)
		if c.Open != 3 || !c.Oldest.Equal(first.Time()) {
			w.Errorf("got %+v", c)
		}
		for limit, want := range map[int]int{10: 3, 2: 2} {
			_, n, next, err := w.s.EndpointHealth(w.Context(), to.ID, limit)
			w.ok(err)
			if n != want || !next.Equal(at) {
				w.Errorf("limit %d: %d waiting, next %v", limit, n, next)
			}
		}
	}},
}
