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
