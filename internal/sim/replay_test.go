package sim

import (
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/replay"
	"github.com/posthorn/posthorn/internal/store"
)

// mortal is an engine to a worker whose process dies at once when dying is set:
// what a commit opened is not handed over any more.
type mortal struct {
	*lane.Engine
	dying *atomic.Bool
}

func (m mortal) Take(works []store.Work, canceled uint64) {
	if !m.dying.Load() {
		m.Engine.Take(works, canceled)
	}
}

// replayWorld is a world whose process carries replays on.
type replayWorld struct {
	*world
	*rand.Rand
	worker *replay.Worker
	dying  *atomic.Bool
}

func (w *replayWorld) carryOn() {
	w.dying = &atomic.Bool{}
	w.worker = replay.New(replay.Config{Store: w.run.store, Lanes: mortal{w.run.engine, w.dying}, Now: w.now, Log: slog.New(slog.DiscardHandler)})
	w.worker.Start()
}

// die crashes the process: perhaps between a commit and its handing over.
func (w *replayWorld) die() {
	w.dying.Store(true)
	wait(w.upTo(time.Second))
	w.worker.Stop()
	w.crash()
	w.carryOn()
}

func (w *replayWorld) upTo(d time.Duration) time.Duration {
	return time.Duration(w.Int64N(int64(d)))
}

func (w *replayWorld) replay(ref string) posthorn.Replay {
	w.Helper()
	r, err := w.run.store.ReplayByRef(w.Context(), w.tenants[0].ID, ref)
	w.ok(err)
	return r
}

// Replays go on through crashes, orderly stops, pauses of the endpoint and of the
// replay, cancellations and retries by hand: what was selected is acknowledged or was
// canceled, and nothing is sent twice but by a crash or by hand.
func TestReplaysGoOnThroughCrashes(t *testing.T) {
	first := rand.Uint64()
	if *worldSeed != 0 {
		first = *worldSeed
	}
	n := max(1, *worlds/10)
	t.Logf("%d worlds: -seed %d", n, first)
	for i := range n {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { replayThroughCrashes(t, dir, first+uint64(i)) })
		if t.Failed() {
			t.Fatalf("try it again with -seed %d -worlds 1", first+uint64(i))
		}
	}
}

func replayThroughCrashes(t *testing.T, dir string, seed uint64) {
	policy := posthorn.Policy{Schedule: []time.Duration{}, LocalRetry: 5 * time.Second}
	w := &replayWorld{world: newWorld(t, dir, lane.Config{Policy: policy}), Rand: rand.New(rand.NewPCG(seed, 0))}
	w.open()
	w.tenant("acme")
	e := w.endpoint(posthorn.Settings{MaxInFlight: 1 + w.IntN(8)})

	const missed, fine = 300, 20
	for range fine {
		w.publish()
	}
	wait(minute)
	w.receivers.answer(e.host, status(500))
	ids := map[posthorn.ID]string{} // delivery -> event
	for range missed {
		p := w.publish()
		ids[p.deliveries[0]] = p.ref
	}
	wait(2 * day)
	w.carryOn()
	broken := len(w.receivers.seen(e.host))
	w.receivers.answer(e.host, func(int) reply { return reply{status: 200, after: 300 * time.Millisecond} })

	plan, err := w.run.store.PlanReplay(w.Context(), e.Tenant, e.ID, posthorn.ReplaySelection{})
	w.ok(err)
	if plan.Total != missed {
		t.Fatalf("%d are selected, want %d", plan.Total, missed)
	}
	ref := posthorn.NewRef(posthorn.ReplayPrefix, w.now())
	_, err = w.run.store.CreateReplay(w.Context(), w.change(), posthorn.Replay{Ref: ref, Tenant: e.Tenant, Endpoint: e.ID,
		Selection: posthorn.ReplaySelection{RatePerSecond: float64(w.IntN(2) * 20)}}, plan, nil)
	w.ok(err)

	crashes, byHand, canceled := 0, map[posthorn.ID]bool{}, map[posthorn.ID]bool{}
	paused := false
	pick := func() posthorn.ID {
		n := w.IntN(len(ids))
		for id := range ids { // in any order: it is random anyway
			if n--; n < 0 {
				return id
			}
		}
		return 0
	}
	for range 12 {
		wait(w.upTo(4 * time.Second))
		switch w.IntN(7) {
		case 0, 1:
			crashes++
			w.die()
		case 2:
			w.worker.Stop()
			w.stop()
			w.open()
			w.carryOn()
		case 3:
			if paused = !paused; paused {
				w.pause(e)
			} else {
				w.resume(e)
			}
		case 4:
			state := posthorn.ReplayPaused
			if w.replay(ref).State == posthorn.ReplayPaused {
				state = posthorn.ReplayRunning
			}
			if !w.replay(ref).State.Final() {
				_, err := w.run.store.SetReplay(w.Context(), w.change(), e.Tenant, ref, state, nil)
				w.ok(err)
			}
		case 5:
			id := pick()
			if _, err := w.run.store.CancelDelivery(w.Context(), w.change(), e.Tenant, id, nil); err == nil {
				canceled[id] = true
			}
		case 6:
			id := pick()
			if _, err := w.run.store.Retry(w.Context(), w.change(), store.RetryOrder{Tenant: e.Tenant, Delivery: id}, nil); err == nil {
				byHand[id] = true
				w.run.engine.Wake()
			}
		}
	}
	if paused {
		w.resume(e)
	}
	if w.replay(ref).State == posthorn.ReplayPaused {
		_, err := w.run.store.SetReplay(w.Context(), w.change(), e.Tenant, ref, posthorn.ReplayRunning, nil)
		w.ok(err)
	}
	wait(hour)

	r := w.replay(ref)
	if r.State != posthorn.ReplayCompleted || r.Sent+r.Skipped != missed || r.Succeeded+r.Failed != r.Sent {
		t.Errorf("the replay ended as %+v", r)
	}
	if r.Skipped > len(byHand)+len(canceled) {
		t.Errorf("%d skipped, %d were sent by hand or canceled", r.Skipped, len(byHand)+len(canceled))
	}
	acknowledged := map[string]int{}
	for _, v := range w.receivers.seen(e.host)[broken:] {
		if v.answered == 200 {
			acknowledged[v.header.Get("webhook-id")]++
		}
	}
	selected := map[string]bool{}
	for id, event := range ids {
		selected[event] = true
		n, d := acknowledged[event], w.delivery(id)
		switch {
		case n == 0 && !canceled[id]:
			t.Errorf("%s was not acknowledged; it is %s", event, d.Shown())
		case n > 1+crashes && !byHand[id]:
			t.Errorf("%s was acknowledged %d times with %d crashes", event, n, crashes)
		case n > 0 && d.Progress.State != posthorn.Succeeded && !canceled[id]:
			t.Errorf("%s was acknowledged and is %s", event, d.Shown())
		}
	}
	for event := range acknowledged {
		if !selected[event] {
			t.Errorf("%s was sent again and was not selected", event)
		}
	}
	w.worker.Stop()
	w.stop()
	w.net.close()
}
