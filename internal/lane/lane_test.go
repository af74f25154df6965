package lane

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func TestDeliveryIsSentAtOnceAndRetriedOnSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, broken)
		m.commit = 0
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		began := time.Now()
		id := m.publish(e, 1, time.Time{})
		wait(100 * time.Hour)
		var got []time.Duration
		for _, q := range r.seen(1) {
			got = append(got, q.at.Sub(began))
		}
		want := []time.Duration{0}
		for i, w := range posthorn.DefaultSchedule() {
			want = append(want, want[i]+w)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		if p := m.row(id).work.Progress; p.State != posthorn.Failed || p.Attempts != 10 {
			t.Errorf("the delivery stands at %+v", p)
		}
		for i, a := range m.row(id).tries {
			if a.Number != i+1 {
				t.Errorf("attempt %d has number %d", i+1, a.Number)
			}
		}
	})
}

func TestPublishOrderHoldsWhenTheLaneOverflows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(3 * time.Millisecond)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{QueuePerLane: 4})
		var most int
		for range 300 {
			m.publish(e, 1, time.Time{})
			most = max(most, e.Stats().Queued)
		}
		// Slower than the receiver: the backlog closes while publishes go on.
		for range 300 {
			m.publish(e, 1, time.Time{})
			wait(5 * time.Millisecond)
		}
		wait(time.Minute)
		got := ids(r.seen(1))
		if len(got) != 600 || !slices.IsSorted(got) {
			t.Errorf("%d attempts, in order: %v", len(got), slices.IsSorted(got))
		}
		if most > 4 {
			t.Errorf("%d deliveries in memory, 4 allowed", most)
		}
		if s := e.Snapshot(1); s.Backlogged || s.Queued != 0 {
			t.Errorf("a lane with nothing to do: %+v", s)
		}
	})
}

func TestManyPublishersLoseNothingToOverflow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(time.Millisecond)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{}, 1, 2, 3)
		e := start(t, m, r, Config{QueuePerLane: 8})
		var wg sync.WaitGroup
		for p := range 20 {
			wg.Go(func() {
				for i := range 100 {
					m.publish(e, int64(1+(p+i)%3), time.Time{})
				}
			})
		}
		wg.Wait()
		wait(time.Minute)
		if n := m.places()["done"]; n != 2000 {
			t.Errorf("%d of 2000 are done: %v", n, m.places())
		}
		if n := len(r.seen(0)); n != 2000 {
			t.Errorf("%d attempts for 2000 deliveries", n)
		}
	})
}

func TestPausedEndpointIsSentNothingAndResumesOldestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(time.Second)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for range 10 {
			m.publish(e, 1, time.Time{})
		}
		m.change(1, pauseIt)
		at := time.Now()
		for range 10 {
			m.publish(e, 1, time.Time{})
			wait(time.Hour)
		}
		if n := len(r.seen(1)); n != 1 || r.seen(1)[0].at.After(at) {
			t.Fatalf("attempts of a paused endpoint: %v", r.seen(1))
		}
		if got := m.places(); got["parked"] != 19 || got["done"] != 1 {
			t.Errorf("while paused the rows stand at %v", got)
		}
		m.change(1, resumeIt)
		for range 10 {
			m.publish(e, 1, time.Time{})
		}
		wait(time.Hour)
		if got := ids(r.seen(1)); len(got) != 30 || !slices.IsSorted(got) {
			t.Errorf("after the resume: %v", got)
		}
	})
}

func TestNoticeStopsAttemptsBeforeItReturns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for round := range 50 {
			for range 5 {
				m.publish(e, 1, time.Time{})
			}
			m.change(1, pauseIt)
			at := time.Now()
			wait(time.Second)
			if all := r.seen(1); len(all) > 0 && all[len(all)-1].at.After(at) {
				t.Fatalf("round %d: an attempt began %s after the pause", round, all[len(all)-1].at.Sub(at))
			}
			m.change(1, resumeIt)
			wait(time.Duration(round) * 100 * time.Microsecond)
		}
		wait(time.Minute)
		if n := m.places()["done"]; n != 250 {
			t.Errorf("%d of 250 done", n)
		}
	})
}

func TestChangedTargetHoldsForWhatIsPending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(time.Second); return ok(nil) })
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for range 3 {
			m.publish(e, 1, time.Time{})
		}
		m.change(1, func(t *store.Target) { t.Endpoint.Version = 2 })
		wait(time.Minute)
		var got []int64
		for _, q := range r.seen(1) {
			got = append(got, q.version)
		}
		if diff := cmp.Diff([]int64{1, 2, 2}, got); diff != "" {
			t.Errorf("versions of the endpoint at the attempts (-want +got):\n%s", diff)
		}
	})
}

func TestDeletedEndpointIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(time.Second); return ok(nil) })
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for range 5 {
			m.publish(e, 1, time.Time{})
		}
		m.change(1, deleteIt)
		wait(time.Hour)
		if n := len(r.seen(1)); n != 1 {
			t.Errorf("%d attempts", n)
		}
		if s := e.Stats(); s.Lanes != 0 || s.Queued != 0 {
			t.Errorf("what is left of it: %+v", s)
		}
	})
}

func TestSendingSwitchStopsAndStartsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1, 2)
		e := start(t, m, r, Config{QueuePerLane: 4})
		wait(time.Second)
		m.setSending(false)
		for range 10 {
			m.publish(e, 1, time.Time{})
			m.publish(e, 2, time.Time{})
		}
		wait(time.Hour)
		if n := len(r.seen(0)); n != 0 {
			t.Errorf("%d attempts while sending is off", n)
		}
		m.setSending(true)
		wait(time.Second)
		if n := m.places()["done"]; n != 20 {
			t.Errorf("%d of 20 done after it was switched on", n)
		}
	})
}

func TestSuspendedTenantIsSentNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		m.endpoint(2, posthorn.Settings{}, 2)
		e := start(t, m, r, Config{})
		m.suspend(1, true)
		m.publish(e, 1, time.Time{})
		m.publish(e, 2, time.Time{})
		wait(time.Hour)
		if got := ids(r.seen(0)); !slices.Equal(got, []posthorn.ID{2}) {
			t.Errorf("attempts of %v, of 2 alone was wanted", got)
		}
		m.suspend(1, false)
		wait(time.Minute)
		if got := ids(r.seen(0)); !slices.Equal(got, []posthorn.ID{2, 1}) {
			t.Errorf("attempts of %v", got)
		}
	})
}

func TestDelayedDeliveryIsSentAtItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.commit = 0
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		wait(time.Hour)
		at := time.Now().Add(36 * time.Hour)
		m.publish(e, 1, at)
		wait(72 * time.Hour)
		if got := r.seen(1); len(got) != 1 || !got[0].at.Equal(at) {
			t.Errorf("sent at %v, due at %v", got, at)
		}
	})
}

func TestStartGoesOnWithWhatTheStoreHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, broken)
		m.endpoint(1, posthorn.Settings{}, 1, 2)
		e := start(t, m, r, Config{})
		for range 3 {
			m.publish(e, 1, time.Time{})
			m.publish(e, 2, time.Time{})
		}
		wait(time.Second)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.reopen()
		r2 := newReceiver(t, ok)
		start(t, m, r2, Config{})
		wait(time.Hour)
		if n := m.places()["done"]; n != 6 {
			t.Errorf("%d of 6 done: %v", n, m.places())
		}
	})
}

func TestResultsThatCannotBeRecordedStopNewAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		endpoints := make([]int64, 50)
		for i := range endpoints {
			endpoints[i] = int64(i + 1)
		}
		m.endpoint(1, posthorn.Settings{}, endpoints...)
		e := start(t, m, r, Config{MaxUnrecorded: 10, MaxInFlight: 1})
		wait(time.Second)
		m.mu.Lock()
		m.fail = true
		m.mu.Unlock()
		for range 20 {
			for _, id := range endpoints {
				m.publish(e, id, time.Time{})
			}
		}
		wait(time.Hour)
		if n := len(r.seen(0)); n != 10 {
			t.Errorf("%d attempts while nothing can be recorded, 10 allowed", n)
		}
		m.mu.Lock()
		m.fail = false
		m.mu.Unlock()
		wait(time.Minute)
		if n := len(r.seen(0)); n != 1000 || m.places()["done"] != 1000 {
			t.Errorf("%d attempts for 1000 deliveries, %v", n, m.places())
		}
	})
}

func TestDrainFinishesWhatIsInFlightAndHandsBackTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(10 * time.Second); return ok(nil) })
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for range 5 {
			m.publish(e, 1, time.Time{})
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]int{"done": 1, "parked": 4}, m.places()); diff != "" {
			t.Errorf("after the drain (-want +got):\n%s", diff)
		}
		if s := e.Reserve(1, 1, 10); !s.Parked() {
			t.Error("a drained engine granted a place")
		}
		if err := e.Drain(t.Context()); err != nil {
			t.Errorf("a second drain: %v", err)
		}
	})
}

// A publish may be committed when the engine has stopped: its node owns the row until
// the store is closed, and must know that.
func TestWhatIsAcceptedAfterTheDrainIsHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { return ok(nil) })
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		s := e.Reserve(1, 1, 100)
		if err := e.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		m.mu.Lock()
		id := m.insert(s, 1, 1, time.Time{})
		m.mu.Lock()
		defer m.mu.Unlock()
		if _, held := m.live[m.rows[id].work.Hold()]; !held {
			t.Error("nobody holds what its node owns")
		}
	})
}

func TestDrainCutsAttemptsShortWhenItsTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, hang)
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		id := m.publish(e, 1, time.Time{})
		m.publish(e, 1, time.Time{})
		wait(time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if err := e.Drain(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("drain says %v", err)
		}
		if d := time.Since(began); d > 6*time.Second {
			t.Errorf("the drain took %s", d)
		}
		got := m.row(id)
		if got.place != "waiting" || got.tries[0].Class != posthorn.ClassLocal || got.work.Progress.Attempts != 0 {
			t.Errorf("what was cut short stands at %+v", got)
		}
		if n := m.places()["parked"]; n != 1 {
			t.Errorf("the rest: %v", m.places())
		}
		wait(time.Minute) // the receiver's own goroutine
	})
}
