package sim

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
)

// keepFor does the housekeeping with a retention of events.
func (w *world) keepFor(events time.Duration) {
	w.Helper()
	for more := true; more; {
		swept, err := w.run.store.Sweep(w.Context(), w.now(), store.Retention{Events: events, Ran: w.run.sure.For(false)})
		w.ok(err)
		more = swept.More
	}
}

// What waits in a lane's memory when its time is over is never sent, and says so.
func TestWhatExpiredInMemoryIsNotSent(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{MaxInFlight: 1})
		w.receivers.answer(e.host, func(int) reply {
			return reply{status: 503, header: map[string][]string{"Retry-After": {"7200"}}}
		})
		var all []published
		for range 12 {
			all = append(all, w.publish())
		}
		w.until(minute)
		w.want("deliveries in memory", 11, w.run.engine.Stats().Queued)
		w.receivers.answer(e.host, status(200))
		w.until(hour + minute)
		w.keepFor(hour)
		w.want("states", map[posthorn.ShownState]int{"expired": 12}, w.states(all))
		new := w.publish()
		w.until(3 * hour)
		w.want("attempts", []string{all[0].ref, new.ref}, refs(w.receivers.seen(e.host)))
		w.want("states", map[posthorn.ShownState]int{"expired": 12}, w.states(all))
		w.want("deliveries in memory", 0, w.run.engine.Stats().Queued)
	})
}

// A delivery that is opened by hand right before its event would go is acknowledged when
// retention has been there: that is recorded.
func TestWhatRetentionMeetsInFlightIsRecorded(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		policy := posthorn.Policy{Schedule: []time.Duration{}, LocalRetry: 5 * time.Second}
		newWorld(t, dir, lane.Config{Policy: policy}).tell(func(w *world) {
			e := w.endpoint(posthorn.Settings{})
			w.receivers.answer(e.host, status(500))
			id := w.publish().deliveries[0]
			for age := hour; age <= 2*hour; age += minute {
				w.until(age)
				w.keepFor(hour)
			}
			w.want("its state before", posthorn.Failed, w.delivery(id).Progress.State)
			w.receivers.answer(e.host, func(int) reply { return reply{status: 200, after: 14 * second} })
			w.until(2*hour + 55*second) // it may go a minute later
			_, err := w.run.store.Retry(w.Context(), w.change(), store.RetryOrder{Tenant: e.Tenant, Delivery: id}, nil)
			w.ok(err)
			w.run.engine.Wake()
			w.until(2*hour + minute + second)
			w.keepFor(hour)
			w.want("its state while it is in flight", posthorn.Failed, w.delivery(id).Progress.State)
			w.until(2*hour + 2*minute)
			w.want("its state when it was acknowledged", posthorn.Succeeded, w.delivery(id).Progress.State)
		})
	})
}
