package sim

import (
	"flag"
	"math/rand/v2"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
)

var (
	worlds    = flag.Int("worlds", 12, "how many random worlds to try")
	worldSeed = flag.Uint64("seed", 0, "the seed of a world to try again; 0 for new ones")
)

// In random worlds (receivers that fail in every way, publishes, pauses, new
// urls, deletions, the sending switch, restarts and crashes) the checker finds
// nothing, and once everything is well again every delivery comes to its end.
func TestRandomWorldsKeepWhatWasPromised(t *testing.T) {
	for range *worlds {
		seed := rand.Uint64()
		if *worldSeed != 0 {
			seed = *worldSeed
		}
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("try it again with -worlds 1 -seed %d", seed)
				}
			})
			c := chance{rand.New(rand.NewPCG(seed, 0))}
			config := lane.Config{MaxInFlight: 1 + c.IntN(40), MaxUnrecorded: 1 + c.IntN(20), QueuePerLane: 1 + c.IntN(30)}
			newWorld(t, dir, config).tell(func(w *world) { w.random(c) })
		})
	}
}

// chance decides everything that is random in a world's story.
type chance struct{ *rand.Rand }

func (c chance) one(in int) bool                    { return c.IntN(in) == 0 }
func (c chance) upTo(d time.Duration) time.Duration { return time.Duration(c.Int64N(int64(d))) }
func (c chance) endpoint(all []*endpoint) *endpoint { return all[c.IntN(len(all))] }
func (c chance) settings() (s posthorn.Settings) {
	if c.one(2) {
		s.MaxInFlight = 1 + c.IntN(4)
	}
	if c.one(4) {
		s.RetrySchedule = []int{5, 30, 600}
	}
	return s
}

// receiver is a script that fails as often as it was born to.
func (c chance) receiver() func(int) reply {
	mood, seed := c.IntN(5), c.Uint64()
	return func(nth int) reply {
		r := chance{rand.New(rand.NewPCG(seed, uint64(nth)))}
		rep := reply{status: 200, after: r.upTo(200 * time.Millisecond)}
		if mood == 0 || r.IntN(10) >= 2*mood {
			return rep
		}
		switch r.IntN(8) {
		case 0:
			return reply{hang: true}
		case 1:
			rep.after = 20 * time.Second // too late
		case 2:
			rep.status = 429
			rep.header = http.Header{"Retry-After": {strconv.Itoa(r.IntN(600))}}
		case 3:
			if r.one(4) {
				rep.status = 410
			}
		default:
			rep.status = 400 + r.IntN(200)
		}
		return rep
	}
}

func (w *world) random(c chance) {
	w.tenant("globex")
	var all []*endpoint
	for i := range 2 + c.IntN(6) {
		e := w.endpointOf(w.tenants[i%2], c.settings())
		w.receivers.answer(e.host, c.receiver())
		all = append(all, e)
	}
	deleted := map[*endpoint]bool{}
	var events []published
	sending := true
	for range 120 {
		switch e := c.endpoint(all); c.IntN(24) {
		default:
			for range 1 + c.IntN(8) {
				var at time.Time
				if c.one(20) {
					at = time.Now().Add(c.upTo(3 * hour))
				}
				p, err := w.publishTo(w.tenants[c.IntN(2)].ID, at)
				w.ok(err)
				events = append(events, p)
			}
		case 0, 1:
			wait(c.upTo(2 * hour))
		case 2, 3:
			wait(c.upTo(30 * second))
		case 4:
			if !deleted[e] {
				w.pause(e)
			}
		case 5, 6:
			if !deleted[e] {
				w.resume(e)
			}
		case 7:
			if c.one(3) && !deleted[e] {
				w.ok(w.run.store.DeleteEndpoint(w.Context(), w.change(), e.Tenant, e.Ref, 0))
				w.ledger.quiet(e.ID, time.Now())
				deleted[e] = true
			}
		case 8:
			sending = !sending
			w.ok(w.run.store.SetSending(w.Context(), w.change(), sending))
		case 9:
			w.stop()
			wait(c.upTo(hour))
			w.open()
		case 10:
			w.crash()
		case 11:
			point := points[c.IntN(len(points))]
			if point == beforePublish || point == afterPublish || point == afterArrival {
				continue // those stop this goroutine, or a receiver
			}
			w.run.gate.arm(point, c.IntN(5))
			select {
			case <-w.run.gate.reached:
			case <-time.After(c.upTo(hour)):
			}
			w.crash()
		}
	}
	// All is well again, once the last attempt that a receiver spoiled is over.
	w.ok(w.run.store.SetSending(w.Context(), w.change(), true))
	for _, e := range all {
		w.receivers.answer(e.host, status(200))
	}
	wait(minute)
	for _, e := range all {
		if !deleted[e] {
			w.resume(e)
		}
	}
	wait(12 * day)
	for state, n := range w.states(events) {
		if state == "pending" || state == posthorn.Held {
			w.Errorf("%d deliveries are still %s", n, state)
		}
	}
	if s := w.run.engine.Stats(); s.InFlight+s.Queued+s.Unrecorded != 0 {
		w.Errorf("the engine is not at rest: %+v", s)
	}
}
