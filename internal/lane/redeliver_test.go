package lane

import (
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// retry is what the store does with a retry by hand of a row that the engine does not
// have, and what the caller does then.
func (m *memory) retry(e *Engine, id posthorn.ID) {
	m.mu.Lock()
	r := m.rows[id]
	if r.place == "owned" { // refused: ErrInFlight
		m.mu.Unlock()
		return
	}
	p, err := exact().Step(r.work.Progress, posthorn.Input{Move: posthorn.Retry, Now: time.Now()})
	if err != nil {
		m.t.Error(err)
	}
	r.work.Progress, r.work.Aside = p, r.work.Aside || p.Extra
	r.place = "waiting"
	inLine := m.inLine(r)
	if inLine {
		r.place = "parked"
	}
	n := store.Notice{Kind: store.NoticeParked, Tenant: r.work.Tenant, Endpoint: r.work.Endpoint}
	m.mu.Unlock()
	if inLine {
		m.watch(n)
	}
	e.Wake()
}

// retryAny retries one that the engine does not have.
func (m *memory) retryAny(e *Engine, random *rand.Rand) {
	m.mu.Lock()
	var all []posthorn.ID
	for id, r := range m.rows {
		if r.place != "owned" && r.work.Kind != posthorn.EventTest {
			all = append(all, id)
		}
	}
	slices.Sort(all)
	var id posthorn.ID
	if len(all) > 0 {
		id = all[random.IntN(len(all))]
	}
	m.mu.Unlock()
	if id != 0 {
		m.retry(e, id)
	}
}

// test publishes the test of an endpoint as package publish does.
func (m *memory) test(e *Engine, endpoint int64) posthorn.ID {
	canceled := e.Canceled()
	m.work()
	m.mu.Lock()
	m.lastID++
	r := &row{work: store.Work{
		ID: m.lastID, Event: m.lastID, EventKey: posthorn.NewRef(posthorn.TestPrefix, time.Now()), Kind: posthorn.EventTest,
		Tenant: m.targets[endpoint].Endpoint.Tenant, Endpoint: endpoint, AcceptedAt: time.Now(), Size: 100, Aside: true,
	}}
	r.work.Progress.NextAt, r.work.Progress.Manual = time.Now(), true
	m.rows[m.lastID] = r
	w := m.give(r)
	m.mu.Unlock()
	w.Body = make([]byte, 100)
	e.Take([]store.Work{w}, canceled)
	m.late(e, w.Hold())
	return w.ID
}

// cancel is what the store does with a cancellation.
func (m *memory) cancel(endpoint int64, which func(*row) bool) (n int) {
	m.mu.Lock()
	for _, r := range m.rows {
		if r.work.Endpoint == endpoint && r.place != "done" && which(r) {
			r.place, r.work.Progress.State = "done", posthorn.Canceled
			n++
		}
	}
	m.mu.Unlock()
	m.watch(store.Notice{Kind: store.NoticeCanceled, Endpoint: endpoint})
	return n
}

// replay makes n owned deliveries of a replay.
func (m *memory) replay(endpoint int64, n int) (works []store.Work) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		m.lastID++
		w := store.Work{ID: m.lastID, Event: m.lastID, Tenant: m.targets[endpoint].Endpoint.Tenant, Endpoint: endpoint, AcceptedAt: time.Now(), Size: 100, Replay: true}
		m.rows[w.ID] = &row{work: w}
		works = append(works, m.give(m.rows[w.ID]))
	}
	return works
}

func TestWhatIsAskedForByHandWaitsForNoProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, broken)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		var all []posthorn.ID
		for range 20 {
			all = append(all, m.publish(e, 1, time.Time{}))
		}
		wait(2 * time.Hour) // probes are five minutes apart by now
		before := len(r.seen(1))
		if s := e.Snapshot(1); !s.BreakerOpen || time.Until(s.NextProbe) < time.Second {
			t.Fatalf("the breaker: %+v", s)
		}
		m.mu.Lock()
		var waits posthorn.ID
		for _, id := range all {
			if m.rows[id].place == "waiting" {
				waits = id
			}
		}
		m.mu.Unlock()
		asked := time.Now()
		m.retry(e, waits)
		wait(time.Second)
		got := r.seen(1)[before:]
		if len(got) != 1 || got[0].id != waits || got[0].at.Sub(asked) > 100*time.Millisecond {
			t.Errorf("requests after a retry by hand: %+v", got)
		}
		if tries := m.row(waits).tries; !tries[len(tries)-1].Manual || m.row(waits).work.Progress.Manual {
			t.Errorf("its attempt: %+v", tries[len(tries)-1])
		}
	})
}

func TestWhatWasCanceledIsNotAttempted(t *testing.T) {
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
		wait(1500 * time.Millisecond)
		flying := r.seen(1)[1].id
		kept := flying + 5
		if n := m.cancel(1, func(r *row) bool { return r.work.ID != flying && r.work.ID != kept }); n != 7 {
			t.Fatalf("%d canceled", n)
		}
		m.publish(e, 1, time.Time{})
		wait(time.Minute)
		if got, want := ids(r.seen(1)), []posthorn.ID{1, flying, kept, 11}; !slices.Equal(got, want) {
			t.Errorf("attempted %v, want %v", got, want)
		}
		if s := e.Snapshot(1); s.Queued != 0 || s.Backlogged {
			t.Errorf("%+v", s)
		}
	})
}

func TestReplaysGoBehindNewDeliveries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(100 * time.Millisecond)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{QueuePerLane: 8})
		wait(time.Second)
		e.ReplayRoom(1) // the lane is made
		wait(time.Second)
		if n := e.ReplayRoom(1); n != replayWindow {
			t.Fatalf("room for %d", n)
		}
		works := m.replay(1, 20)
		e.Take(works, e.Canceled())
		if n := e.ReplayRoom(1); n != replayWindow-20 {
			t.Errorf("room for %d more", n)
		}
		wait(time.Millisecond)
		for range 30 { // more than fit in memory
			m.publish(e, 1, time.Time{})
		}
		wait(time.Minute)
		got := ids(r.seen(1))
		if len(got) != 50 {
			t.Fatalf("%d attempts", len(got))
		}
		replayed := 0
		for _, id := range got[:31] {
			if id <= works[19].ID {
				replayed++
			}
		}
		if replayed > 1 { // the one that was in flight
			t.Errorf("%d of a replay went before new ones: %v", replayed, got)
		}
		if n := e.ReplayRoom(1); n != replayWindow {
			t.Errorf("room for %d afterwards", n)
		}
	})
}

// A delivery of a replay that was canceled between the store and the lane is not
// attempted.
func TestTakeAfterACancellation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		before := e.Canceled()
		works := m.replay(1, 3)
		m.cancel(1, func(r *row) bool { return r.work.ID == works[1].ID })
		e.Take(works, before)
		wait(time.Minute)
		if got := ids(r.seen(1)); !slices.Equal(got, []posthorn.ID{works[0].ID, works[2].ID}) {
			t.Errorf("attempted %v", got)
		}
	})
}

func TestARecalledDeliveryIsNotAttemptedUntilItIsGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt {
			wait(time.Second)
			return ok(nil)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1)
		e := start(t, m, r, Config{})
		for range 5 {
			m.publish(e, 1, time.Time{})
		}
		wait(500 * time.Millisecond)
		for _, not := range [][2]int64{{1, 1}, {1, 99}, {2, 2}} {
			if _, ok := e.Recall(not[0], posthorn.ID(not[1])); ok {
				t.Errorf("%d of %d, which is in flight or unknown, was recalled", not[1], not[0])
			}
		}
		var holds []store.Hold
		for _, id := range []posthorn.ID{3, 5} { // from the middle and the end
			h, ok := e.Recall(1, id)
			if !ok || h.ID != id {
				t.Fatalf("%d was not recalled", id)
			}
			holds = append(holds, h)
		}
		m.publish(e, 1, time.Time{})
		wait(time.Minute)
		if got := ids(r.seen(1)); !slices.Equal(got, []posthorn.ID{1, 2, 4, 6}) {
			t.Errorf("attempted %v", got)
		}
		e.GiveBack(1, holds[0])
		e.GiveBack(1, holds[1])
		wait(time.Minute)
		if got := ids(r.seen(1)); !slices.Equal(got, []posthorn.ID{1, 2, 4, 6, 3, 5}) {
			t.Errorf("attempted %v", got)
		}
	})
}
