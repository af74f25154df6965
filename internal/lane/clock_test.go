package lane

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// The clock may step back between the moment at which the scheduler reads it and
// the moment at which a lane does: the lane then sleeps until a time that the
// scheduler takes for past. It must not be woken over and over.
func TestClockThatStepsBackDoesNotSpinTheScheduler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		limited := func(*store.Work) posthorn.Attempt {
			return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 429, RetryAfter: time.Hour}
		}
		m, r := newMemory(t), newReceiver(t, limited)
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{Now: func() time.Time {
			if reads.Add(1) > 100_000 {
				panic("the scheduler spins")
			}
			return time.Now()
		}})
		m.publish(e, 1, time.Time{})
		wait(time.Second)
		m.publish(e, 1, time.Time{}) // sleeps until the hold is over
		wait(time.Second)
		e.mu.Lock()
		defer e.mu.Unlock()
		e.wakeLanes(time.Now().Add(2 * time.Hour))
		if len(e.wakes) != 1 {
			t.Errorf("%d lanes sleep, want 1", len(e.wakes))
		}
	})
}

// What the store knows of the last attempt is a time of the wall clock, which may
// have been stepped since: an engine that made the attempt itself goes by its own.
func TestRateIsKeptOverAStepOfTheClockAndANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var step atomic.Int64
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{RatePerSecond: 0.1}, 1)
		e := start(t, m, r, Config{Now: func() time.Time { return time.Now().Add(time.Duration(step.Load())) }})
		m.publish(e, 1, time.Time{})
		wait(time.Second)
		step.Store(int64(time.Hour))
		e.Notice(store.Notice{Kind: store.NoticeAll})
		m.publish(e, 1, time.Time{})
		wait(time.Hour)
		got := r.seen(1)
		if len(got) != 2 {
			t.Fatalf("%d attempts of 2", len(got))
		}
		if d := got[1].at.Sub(got[0].at); d != 10*time.Second {
			t.Errorf("the second attempt came %s after the first; want 10s", d)
		}
	})
}
