package lane

import (
	"context"
	"flag"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

var (
	worlds    = flag.Int("worlds", 40, "how many random worlds to try")
	worldSeed = flag.Uint64("seed", 0, "the seed of a world to try again; 0 for new ones")
)

// In random worlds (commits of random length, overflows, pauses, restarts) with
// one publisher and one attempt at a time, deliveries arrive in publish order,
// none is lost and none is sent twice.
func TestRandomWorldsKeepPublishOrder(t *testing.T) {
	for range *worlds {
		seed := rand.Uint64()
		if *worldSeed != 0 {
			seed = *worldSeed
		}
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("try it again with -worlds 1 -seed %d", seed)
				}
			})
			orderedWorld(t, seed)
		})
	}
}

func orderedWorld(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 0))
	slow := rng.IntN(4) // shifts the balance between publisher and receiver
	m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
		wait(time.Duration(1+slow) * time.Millisecond)
		return ok(nil)
	})
	m.chance = func() time.Duration { return time.Duration(rng.IntN(5000)) * time.Microsecond }
	m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
	c := Config{QueuePerLane: 1 + rng.IntN(8), QueueBytes: 1 << 20}
	e := start(t, m, r, c)
	const events = 400
	published := make(chan struct{})
	random := rand.New(rand.NewPCG(seed, 1))
	go func() {
		defer close(published)
		paused := false
		for range events {
			m.publish(e, 1, time.Time{})
			switch random.IntN(30) {
			case 0:
				wait(time.Duration(random.IntN(100)) * time.Millisecond)
			case 1:
				if paused = !paused; paused {
					m.change(1, pauseIt)
				} else {
					m.change(1, resumeIt)
				}
			case 2: // a change that means nothing
				m.change(1, func(*store.Target) {})
			case 3:
				e.Notice(store.Notice{Kind: store.NoticeAll})
			case 4:
				if err := e.Drain(context.Background()); err != nil {
					t.Error(err)
				}
				e = start(t, m, r, c)
			}
		}
		m.change(1, resumeIt)
	}()
	<-published
	wait(time.Hour)
	got := ids(r.seen(1))
	if len(got) != events {
		t.Errorf("%d attempts for %d deliveries; %v", len(got), events, m.places())
	}
	if !slices.IsSorted(got) {
		t.Errorf("out of order: %v", got)
	}
	if s := e.Stats(); s.Queued+s.InFlight+s.Unrecorded != 0 || s.QueuedBytes != 0 {
		t.Errorf("something is left: %+v", s)
	}
}
