package sim

import (
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

func TestClockThatStepsBackDelaysNothingNew(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.until(minute)
		_, err := w.publishTo(w.tenants[0].ID, w.now().Add(second))
		w.ok(err)
		w.until(2 * minute)
		w.step(-4 * hour)
		_, err = w.publishTo(w.tenants[0].ID, w.now().Add(10*minute))
		w.ok(err)
		w.until(day)
		w.want("attempts", []time.Duration{minute + second, 12 * minute}, w.times(e.host))
	})
}

func TestClockThatStepsBackAfterAnErrorOfTheStoreStopsNothing(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.until(minute)
		w.run.faults.set(callClaimDue, fault{left: 1, err: errCrashed})
		_, err := w.publishTo(w.tenants[0].ID, w.now().Add(second))
		w.ok(err)
		wait(100 * time.Millisecond) // the scheduler has met the error
		w.step(-4 * hour)
		_, err = w.publishTo(w.tenants[0].ID, w.now().Add(10*minute))
		w.ok(err)
		w.until(day)
		w.want("attempts", []time.Duration{11*minute + 100*time.Millisecond, 4*hour + minute + second}, w.times(e.host))
	})
}

func TestClockThatStepsBackLetsALaneAskTheStoreAgain(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.until(minute)
		w.run.faults.set(callTarget, fault{left: 1, err: errCrashed})
		w.patch(e, func(p *posthorn.Endpoint) { p.Description = "read me again" })
		w.publish()
		wait(50 * time.Millisecond) // the lane has met the error
		w.step(-4 * hour)
		w.publish()
		w.until(day)
		w.want("attempts", 2, len(w.times(e.host)))
		for _, at := range w.times(e.host) {
			if at > 2*minute+second {
				w.Errorf("sent at %s, published at %s", at, minute)
			}
		}
	})
}
