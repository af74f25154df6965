package lane

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func TestStoreOutageDelaysAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(20 * time.Millisecond); return ok(nil) })
		m.endpoint(1, posthorn.Settings{MaxInFlight: 2}, 1, 2, 3)
		e := start(t, m, r, Config{QueuePerLane: 10, MaxUnrecorded: 5})
		total := 0
		for round := range 20 {
			for range 30 {
				m.publish(e, int64(1+total%3), time.Time{})
				total++
			}
			m.mu.Lock()
			m.outage = true
			m.mu.Unlock()
			switch round % 4 { // what must be read again during the outage
			case 0:
				e.Notice(store.Notice{Kind: store.NoticeAll})
			case 1:
				e.Notice(store.Notice{Kind: store.NoticeEndpoint, Endpoint: 1, Tenant: 1})
			}
			wait(7 * time.Second)
			m.mu.Lock()
			m.outage = false
			m.mu.Unlock()
			wait(300 * time.Millisecond)
		}
		wait(time.Hour)
		if n := m.places()["done"]; n != total {
			t.Errorf("%d of %d done: %v", n, total, m.places())
		}
		if n := len(r.seen(0)); n != total {
			t.Errorf("%d attempts for %d deliveries that were all answered", n, total)
		}
	})
}

func TestUnreadablePayloadCostsNoStepOfTheSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, broken)
		m.endpoint(1, posthorn.Settings{}, 1)
		e := start(t, m, r, Config{})
		id := m.publish(e, 1, time.Time{})
		wait(time.Second)
		m.mu.Lock()
		m.unreadable = true
		m.mu.Unlock()
		wait(time.Minute)
		p := m.row(id).work.Progress
		if p.Attempts != 1 || p.Waits != 1 || p.Tries < 10 {
			t.Errorf("after a minute of a payload that cannot be read: %+v", p)
		}
		if len(r.seen(1)) != 1 {
			t.Errorf("%d requests", len(r.seen(1)))
		}
	})
}

func TestBodiesInMemoryAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, hang)
		m.commit = 0
		var endpoints []int64
		for i := range 100 {
			endpoints = append(endpoints, int64(i+1))
		}
		m.endpoint(1, posthorn.Settings{}, endpoints...)
		const queues = 40 << 10
		limit := int64(queues + len(endpoints)*itemOverhead)
		e := start(t, m, r, Config{QueueBytes: queues})
		for range 10 {
			for _, id := range endpoints {
				m.publish(e, id, time.Time{})
				if n := e.Stats().QueuedBytes; n > limit {
					t.Fatalf("the queues hold %d bytes, %d allowed", n, limit)
				}
			}
		}
		r.mu.Lock()
		r.answer = ok
		r.mu.Unlock()
		wait(24 * time.Hour)
		if n := m.places()["done"]; n != 1000 {
			t.Errorf("%d of 1000 done", n)
		}
		if n := e.Stats().QueuedBytes; n != 0 {
			t.Errorf("%d bytes are still counted", n)
		}
	})
}

func TestLanesAtRestAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.commit = 0
		e := start(t, m, r, Config{})
		for id := range int64(maxResting + 1000) {
			m.endpoint(1, posthorn.Settings{}, id)
			e.Notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: 1, Endpoint: id})
		}
		synctest.Wait()
		if n := e.Stats().Lanes; n != maxResting {
			t.Errorf("%d lanes are kept, %d wanted", n, maxResting)
		}
		m.publish(e, 0, time.Time{})
		wait(time.Second)
		if len(r.seen(0)) != 1 {
			t.Error("an endpoint whose lane was let go was sent nothing")
		}
	})
}

// A lane that works may use memory that nobody else needs; it leaves the half of
// it to others, and a failing one keeps next to nothing.
func TestBurstStaysInMemoryWhileThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			wait(time.Second)
			if w.Endpoint == 3 {
				return broken(w)
			}
			return ok(w)
		})
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, 1, 2, 3)
		const cost = 100 + itemOverhead
		e := start(t, m, r, Config{QueuePerLane: 10, QueueBurst: 100, QueueBytes: 160 * cost})
		publish := func(endpoint int64, n, wantQueued int) {
			t.Helper()
			for range n {
				m.publish(e, endpoint, time.Time{})
			}
			if got := e.Snapshot(endpoint).Queued; got < wantQueued-1 || got > wantQueued+1 {
				t.Errorf("endpoint %d has %d of %d in memory, want about %d", endpoint, got, n, wantQueued)
			}
		}
		publish(1, 60, 60)
		publish(2, 60, 20) // half of the memory is used then
		wait(5 * time.Minute)
		publish(3, 60, 60)
		wait(20 * time.Second) // the breaker opens
		if got := e.Snapshot(3).Queued; got > failingQueue {
			t.Errorf("a failing endpoint keeps %d in memory", got)
		}
		publish(1, 120, 70) // half of the memory, less what the failing one has
		wait(10 * time.Minute)
		if got := m.places(); got["done"] != 240 {
			t.Errorf("of 240 deliveries to endpoints that answer: %v", got)
		}
	})
}
