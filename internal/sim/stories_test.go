package sim

import (
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
)

// times are the ages of the story at which a host was visited.
func (w *world) times(host string) (at []time.Duration) {
	for _, v := range w.receivers.seen(host) {
		at = append(at, w.age(v.at))
	}
	return at
}

func (w *world) want(what string, want, got any) {
	w.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// refs are the events of visits, in order.
func refs(visits []visit) (s []string) {
	for _, v := range visits {
		s = append(s, v.header.Get("webhook-id"))
	}
	return s
}

func refsOf(ps []published) (s []string) {
	for _, p := range ps {
		s = append(s, p.ref)
	}
	return s
}

const (
	second = time.Second
	minute = time.Minute
	hour   = time.Hour
	day    = 24 * time.Hour
)

func TestFailingDeliveryIsAttemptedTenTimesOnSchedule(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(500))
		p := w.publish()
		w.until(10 * day)
		want := []time.Duration{0}
		for i, wait := range posthorn.DefaultSchedule() {
			want = append(want, want[i]+wait)
		}
		w.want("attempts", want, w.times(e.host))
		w.want("the last attempt", 75*hour+35*minute+5*second, want[9])
		d := w.delivery(p.deliveries[0])
		w.want("state", posthorn.Failed, d.Progress.State)
		for i, v := range w.receivers.seen(e.host) {
			w.want("posthorn-attempt", fmt.Sprint(i+1), v.header.Get("posthorn-attempt"))
		}
		w.want("status", posthorn.StatusActive, w.stored(e).Status)
	})
}

func TestTimeoutsCountFromTheirEnd(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{TimeoutSeconds: 10, RetrySchedule: []int{60, 60}})
		w.receivers.answer(e.host, hanging)
		p := w.publish()
		w.until(hour)
		w.want("attempts", []time.Duration{0, 70 * second, 140 * second}, w.times(e.host))
		d := w.delivery(p.deliveries[0])
		w.want("state", posthorn.Failed, d.Progress.State)
		w.want("class", posthorn.ClassTimeout, d.Attempts[2].Class)
	})
}

func TestFiveDaysDownPausesAndAResumeDelivers(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(503))
		var all []published
		for i := range 5 * 24 {
			w.until(time.Duration(i) * hour)
			all = append(all, w.publish())
		}
		w.until(5*day - second)
		w.want("status before the fifth day is over", posthorn.StatusActive, w.stored(e).Status)
		w.until(5*day + hour)
		w.want("reason of the pause", posthorn.PausedFailing, w.stored(e).PausedReason)
		seen := len(w.receivers.seen(e.host))
		for i := range 24 {
			w.until(6*day + time.Duration(i)*hour)
			all = append(all, w.publish())
		}
		w.want("attempts while paused", 0, len(w.receivers.seen(e.host))-seen)
		failed := w.states(all)["failed"]
		if failed == 0 {
			t := w.states(all)
			w.Errorf("nothing has failed for good: %v", t)
		}
		w.until(7 * day)
		w.receivers.answer(e.host, status(204))
		w.resume(e)
		w.until(9 * day)
		w.want("states at the end", map[posthorn.ShownState]int{"failed": failed, "succeeded": len(all) - failed}, w.states(all))
	})
}

func TestJustUnderFiveDaysDownIsForgiven(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(503))
		w.publish()
		w.until(4*day + 22*hour)
		p := w.publish()
		w.receivers.answer(e.host, status(200))
		w.until(4*day + 23*hour)
		w.want("status", posthorn.StatusActive, w.stored(e).Status)
		d := w.delivery(p.deliveries[0])
		w.want("state", posthorn.Succeeded, d.Progress.State)
		w.receivers.answer(e.host, status(503))
		w.publish()
		w.until(6 * day)
		w.want("status a day later, as the rule began anew", posthorn.StatusActive, w.stored(e).Status)
		w.receivers.answer(e.host, status(200))
		w.until(20 * day)
	})
}

func TestGonePausesTheEndpointAndKeepsWhatWaits(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(410))
		all := []published{w.publish(), w.publish(), w.publish()}
		w.until(day)
		w.want("attempts", 1, len(w.receivers.seen(e.host)))
		w.want("reason", posthorn.PausedGone, w.stored(e).PausedReason)
		w.want("states", map[posthorn.ShownState]int{posthorn.Held: 3}, w.states(all))
		w.receivers.answer(e.host, status(200))
		w.resume(e)
		w.until(2 * day)
		w.want("states", map[posthorn.ShownState]int{"succeeded": 3}, w.states(all))
	})
}

func TestRetryAfterHoldsTheEndpoint(t *testing.T) {
	for name, header := range map[string]func() string{
		"seconds": func() string { return "3600" },
		"date":    func() string { return time.Now().Add(hour).UTC().Format(http.TimeFormat) },
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(w *world) {
				e := w.endpoint(posthorn.Settings{})
				w.receivers.answer(e.host, func(nth int) reply {
					if nth == 0 {
						return reply{status: 429, header: http.Header{"Retry-After": {header()}}}
					}
					return reply{status: 200}
				})
				w.publish()
				for i := range 10 {
					w.until(time.Duration(i+1) * minute)
					w.publish()
				}
				w.until(3 * hour)
				times := w.times(e.host)
				w.want("attempts", 12, len(times))
				for _, at := range times[1:] {
					w.want("an attempt after the hold", hour, at)
				}
			})
		})
	}
}

func TestRetryAfterSurvivesARestart(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, func(nth int) reply {
			if nth == 0 {
				return reply{status: 503, header: http.Header{"Retry-After": {"7200"}}}
			}
			return reply{status: 200}
		})
		w.publish()
		w.until(minute)
		w.publish()
		w.stop()
		w.open()
		w.publish()
		w.until(3 * hour)
		w.want("attempts", []time.Duration{0, 2 * hour, 2 * hour, 2 * hour}, w.times(e.host))
	})
}

func TestPausedForADayThenOldestFirst(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{MaxInFlight: 1})
		w.receivers.answer(e.host, func(int) reply { return reply{status: 200, after: 100 * time.Millisecond} })
		var all []published
		w.pause(e)
		for i := range 600 {
			w.until(time.Duration(i) * 2 * minute)
			all = append(all, w.publish())
		}
		w.until(day)
		w.want("attempts while paused", 0, len(w.receivers.seen(e.host)))
		w.want("states", map[posthorn.ShownState]int{posthorn.Held: 600}, w.states(all))
		w.resume(e)
		for range 100 {
			all = append(all, w.publish())
			wait(20 * time.Millisecond)
		}
		w.until(2 * day)
		w.want("order", refsOf(all), refs(w.receivers.seen(e.host)))
	})
}

func TestOneDeadAmongFortyLeavesTheOthersAlone(t *testing.T) {
	story(t, func(w *world) {
		var all []*endpoint
		for range 40 {
			all = append(all, w.endpoint(posthorn.Settings{}))
		}
		w.receivers.answer(all[7].host, hanging)
		accepted := map[string]time.Time{}
		for i := range 300 {
			w.until(time.Duration(i) * second)
			accepted[w.publish().ref] = time.Now()
		}
		w.until(hour)
		for i, e := range all {
			if i == 7 {
				continue
			}
			visits := w.receivers.seen(e.host)
			w.want("attempts", 300, len(visits))
			for _, v := range visits {
				if late := v.at.Sub(accepted[v.header.Get("webhook-id")]); late > 0 {
					w.Fatalf("an attempt to endpoint %d began %s after the publish", i, late)
				}
			}
		}
		if n := len(w.receivers.seen(all[7].host)); n > 30 {
			w.Errorf("%d attempts to the dead endpoint in an hour", n)
		}
	})
}

func TestAThousandHangingEndpointsSlowNobody(t *testing.T) {
	story(t, func(w *world) {
		healthy := w.endpointOf(w.tenant("healthy"), posthorn.Settings{})
		for range 1000 {
			w.receivers.answer(w.endpoint(posthorn.Settings{}).host, hanging)
		}
		accepted := map[string]time.Time{}
		for i := range 120 {
			w.until(time.Duration(i) * second)
			if i%20 == 0 {
				w.publish()
			}
			p, err := w.publishTo(healthy.Tenant, time.Time{})
			w.ok(err)
			accepted[p.ref] = time.Now()
			if i == 30 && w.run.engine.Stats().InFlight > 1001 {
				w.Errorf("a thousand hanging endpoints hold %d attempts", w.run.engine.Stats().InFlight)
			}
		}
		wait(second)
		visits := w.receivers.seen(healthy.host)
		w.want("attempts to the healthy endpoint", 120, len(visits))
		for _, v := range visits {
			if late := v.at.Sub(accepted[v.header.Get("webhook-id")]); late > 0 {
				w.Errorf("an attempt to the healthy endpoint began %s after the publish", late)
			}
		}
	})
}

func TestDeleteCancelsWhatIsPending(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(500))
		all := []published{w.publish(), w.publish()}
		w.until(10 * second)
		w.delete(e)
		w.until(10 * day)
		w.want("states", map[posthorn.ShownState]int{"canceled": 2}, w.states(all))
	})
}

func TestLateSuccessOfADeletedEndpointCounts(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, func(int) reply { return reply{status: 200, after: 5 * second} })
		p := w.publish()
		w.until(second)
		w.pause(e)
		w.until(minute)
		d := w.delivery(p.deliveries[0])
		w.want("state", posthorn.Succeeded, d.Progress.State)
	})
}

func TestNewURLHoldsForWhatIsPending(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(404))
		w.publish()
		w.until(minute)
		old := e.host
		w.patch(e, func(p *posthorn.Endpoint) { p.URL = "http://new.receivers.net/hook" })
		w.until(hour)
		w.want("attempts at the old url", []time.Duration{0, 5 * second}, w.times(old))
		w.want("attempts at the new one", []time.Duration{5*minute + 5*second}, w.times("new.receivers.net"))
	})
}

func TestDeliverAtIsKeptToTheInstant(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		wait(10 * minute)
		for _, at := range []time.Duration{3 * day, day + 90*minute, day} {
			_, err := w.publishTo(w.tenants[0].ID, w.began.Add(at))
			w.ok(err)
		}
		w.until(12 * hour)
		w.stop()
		w.open()
		w.until(5 * day)
		w.want("attempts", []time.Duration{day, day + 90*minute, 3 * day}, w.times(e.host))
	})
}

func TestSendingSwitchStopsEverythingAndGoesOn(t *testing.T) {
	story(t, func(w *world) {
		a, b := w.endpoint(posthorn.Settings{}), w.endpoint(posthorn.Settings{})
		w.receivers.answer(b.host, func(nth int) reply { return reply{status: 500 - 300*min(nth, 1)} })
		w.publish()
		w.until(second)
		w.sending(false)
		var all []published
		for range 300 {
			all = append(all, w.publish())
		}
		w.until(day)
		w.want("attempts", 2, len(w.times(a.host))+len(w.times(b.host)))
		w.sending(true)
		w.until(2 * day)
		w.want("states", map[posthorn.ShownState]int{"succeeded": 600}, w.states(all))
		w.want("attempts to the one that failed once", 302, len(w.times(b.host)))
	})
}

func TestSuspendedTenantIsHeldAndResumed(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{})
		w.receivers.answer(e.host, status(500))
		p := w.publish()
		w.until(second)
		w.suspend(&w.tenants[0], true)
		w.until(day)
		w.want("attempts", 1, len(w.times(e.host)))
		d := w.delivery(p.deliveries[0])
		w.want("state", posthorn.Held, d.Shown())
		w.receivers.answer(e.host, status(200))
		w.suspend(&w.tenants[0], false)
		w.until(day + minute)
		w.want("attempts", []time.Duration{0, day}, w.times(e.host))
	})
}

func TestDrainFinishesAttemptsAndTheNextStartGoesOn(t *testing.T) {
	story(t, func(w *world) {
		e := w.endpoint(posthorn.Settings{MaxInFlight: 2})
		w.receivers.answer(e.host, func(int) reply { return reply{status: 200, after: 10 * second} })
		var all []published
		for range 20 {
			all = append(all, w.publish())
		}
		w.until(11 * second)
		w.stop()
		seen := len(w.receivers.seen(e.host))
		for _, v := range w.receivers.seen(e.host) {
			w.want("answered before the process ended", 200, v.answered)
		}
		w.until(hour)
		w.open()
		w.until(2 * hour)
		w.want("attempts", 20, len(w.receivers.seen(e.host)))
		if seen == 20 || seen == 0 {
			w.Errorf("%d attempts before the restart", seen)
		}
		got := refs(w.receivers.seen(e.host))
		slices.Sort(got)
		want := refsOf(all)
		slices.Sort(want)
		w.want("deliveries", want, got)
	})
}
