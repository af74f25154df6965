package sim

import (
	"fmt"
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
		w.want("attempts", []time.Duration{minute + second, 11*minute + 100*time.Millisecond}, w.times(e.host))
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

// A clock that was ahead and is set right keeps an endpoint whose breaker opened
// meanwhile shut for no longer than its wait: with a restart, and when the step is
// believed.
func TestAnEndpointIsNotShutForTheLengthOfAStep(t *testing.T) {
	for _, ahead := range []time.Duration{hour, day, 32 * day} {
		for how, setRight := range map[string]func(w *world){
			"restart": func(w *world) { w.step(-ahead); w.crash() },
			"running": func(w *world) { w.step(-ahead); wait(hour - second) }, // believed in a second
		} {
			t.Run(fmt.Sprint(ahead, " ", how), func(t *testing.T) {
				story(t, func(w *world) {
					w.step(ahead)
					w.crash() // the new process knows no other time
					e := w.endpoint(posthorn.Settings{})
					w.receivers.answer(e.host, status(500))
					if how == "running" {
						setRight(w)
					}
					for range 40 {
						w.publish()
					}
					wait(minute)
					w.receivers.answer(e.host, status(200))
					from := time.Now()
					if how == "restart" {
						setRight(w)
					}
					wait(2 * hour)
					last, n := time.Time{}, 0
					for _, v := range w.receivers.seen(e.host) {
						if v.answered == 200 {
							last, n = v.at, n+1
						}
					}
					if n != 40 {
						t.Errorf("%d of 40 are delivered", n)
					}
					// The first five wait for the second wait of the schedule.
					if took := last.Sub(from); took > 7*minute {
						t.Errorf("the last was delivered after %s", took)
					}
				})
			})
		}
	}
}

// What is for later is not sent early, and what waits for a retry neither, while the
// clock is wrong.
func TestAClockThatIsWrongForAWhileSendsNothingEarly(t *testing.T) {
	for _, ahead := range []time.Duration{hour, -hour, day, -day, 32 * day, -32 * day} {
		t.Run(ahead.String(), func(t *testing.T) {
			story(t, func(w *world) {
				e := w.endpoint(posthorn.Settings{})
				w.receivers.answer(e.host, status(500))
				w.until(minute)
				w.publish() // attempts after 1 min, 1 min 5 s, 6 min 5 s, 36 min 5 s
				_, err := w.publishTo(w.tenants[0].ID, w.now().Add(20*minute))
				w.ok(err)
				for range 6 {
					w.step(ahead)
					wait(4 * minute)
					w.step(-ahead)
					wait(4 * minute)
				}
				w.until(hour)
				var times []time.Duration
				for _, v := range w.times(e.host) {
					times = append(times, v.Truncate(second))
				}
				w.want("attempts", []time.Duration{
					minute, minute + 5*second, 6*minute + 5*second, 21 * minute, 21*minute + 5*second, 26*minute + 5*second, 36*minute + 5*second, 56*minute + 5*second,
				}, times)
			})
		})
	}
}
