package sim

import (
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

// A crash between any two steps loses nothing that was acknowledged, and
// repeats at most the attempt that was under way.
func TestCrashBetweenAnyTwoStepsLosesNothing(t *testing.T) {
	for _, p := range points {
		t.Run(string(p), func(t *testing.T) {
			story(t, func(w *world) { w.crashAt(p, posthorn.Settings{MaxInFlight: 1}) })
		})
	}
}

// … nor does it bring a line out of order.
func TestCrashBetweenAnyTwoStepsKeepsTheLine(t *testing.T) {
	for _, p := range points {
		if p == afterClaim {
			continue // what is due in a line is fetched
		}
		t.Run(string(p), func(t *testing.T) {
			story(t, func(w *world) { w.crashAt(p, posthorn.Settings{Ordered: true}) })
		})
	}
}

func (w *world) crashAt(p point, s posthorn.Settings) {
	e := w.endpoint(s)
	other := w.endpoint(posthorn.Settings{})
	w.receivers.answer(e.host, func(nth int) reply {
		if nth%3 == 1 { // some are retried
			return reply{status: 500}
		}
		return reply{status: 200, after: 50 * time.Millisecond}
	})
	gate := w.run.gate
	w.receivers.tell(func() { gate.pass(afterArrival) })
	skip := 3
	switch p {
	case afterFetch, beforePark, afterPark, afterClaim:
		skip = 0 // these are many deliveries at once
	}
	gate.arm(p, skip)
	var all []published
	published := make(chan struct{})
	r := w.run
	go func() {
		defer close(published)
		for i := range 20 {
			// A pause and a resume make rows to park and to fetch.
			if i == 8 {
				w.pause(e)
			}
			if i == 16 {
				w.resume(e)
			}
			if r.dead.Load() {
				return
			}
			pub, err := w.publishTo(w.tenants[0].ID, time.Time{})
			if err != nil {
				return
			}
			all = append(all, pub)
			wait(10 * time.Millisecond)
		}
	}()
	select {
	case <-gate.reached:
	case <-time.After(time.Hour):
		w.Errorf("nobody came to the point %q", p)
	}
	w.crash()
	<-published
	w.receivers.tell(nil)
	w.resume(e)
	w.until(10 * day)
	n := w.states(all)
	w.want("states", map[posthorn.ShownState]int{"succeeded": 2 * len(all)}, n)
	accepted := w.history.count()
	if got := len(w.receivers.seen(other.host)); got < accepted || got > accepted+1 {
		w.Errorf("%d attempts to an endpoint that always answers, for %d events and one crash", got, accepted)
	}
}
