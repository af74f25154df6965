package lane

import (
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// rooms are a receiver's places for connections, so many at a time.
type rooms struct {
	mu             sync.Mutex
	most           int
	all, peak      int
	refused, taken int
}

// within gives the receiver so many places; kept are those that only the first
// connection of an endpoint gets.
func within(r *receiver, most, kept int) *rooms {
	p := &rooms{most: most}
	r.connect = func(_ int64, first bool) bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.all >= most || !first && p.all >= most-kept {
			p.refused++
			return false
		}
		p.all++
		p.taken++
		p.peak = max(p.peak, p.all)
		return true
	}
	r.release = func(int64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.all--
	}
	return p
}

// tries returns how many attempts found no connection since it was asked last.
func (p *rooms) tries() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.refused
	p.refused = 0
	return n
}

// Where a tenant has as many connections to an address as it may, its lanes go on with
// those that they have. An attempt without one goes back to where it was: it is in no
// record, waits for nothing but a connection, and holds no place meanwhile.
func TestLanesWithoutAConnectionForAllGoOnWithThoseTheyHave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lanes, each, places, takes = 40, 100, 50, 20 * time.Millisecond
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			wait(takes)
			return ok(w)
		})
		keepsLine(m, r)
		m.endpoint(1, posthorn.Settings{}, run(1, lanes-1)...)
		m.endpoint(1, ordered, lanes)
		m.commit = 0
		p := within(r, places, places/8)
		var late latest
		e := start(t, m, r, Config{Observe: func(o Observation) {
			if o.Attempt.Class != posthorn.ClassOK || o.Attempt.Number != 1 {
				t.Errorf("attempt %d of a delivery is recorded as %v", o.Attempt.Number, o.Attempt.Class)
			}
			late.take(o)
		}})
		began := time.Now()
		for range each {
			for _, id := range run(1, lanes) {
				m.publish(e, id, time.Time{})
			}
		}
		wait(lanes*each*takes/places + each*takes) // all places in use, and the ordered one's tail
		if done := m.places()["done"]; done != lanes*each {
			t.Errorf("%d of %d deliveries are done after %v", done, lanes*each, time.Since(began))
		}
		refused := p.tries()
		if p.peak < places-places/8 || refused == 0 {
			t.Errorf("%d of %d places were used at most, %d attempts found none", p.peak, places, refused)
		}
		if refused > p.taken/4 {
			t.Errorf("%d attempts found no connection, beside %d that did", refused, p.taken)
		}
		wait(48 * time.Hour)
	})
}

// Endpoints that hang hold all that there is. One that has no connection tries again,
// more and more rarely, and gets one soon after there is one.
func TestALaneWithoutAConnectionTriesMoreAndMoreRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.endpoint(1, posthorn.Settings{}, 1)
		m.commit = 0
		p := within(r, 0, 0)
		var open atomic.Bool
		closed := r.connect
		r.connect = func(endpoint int64, first bool) bool { return open.Load() || closed(endpoint, first) }
		e := start(t, m, r, Config{})
		m.publish(e, 1, time.Time{})
		wait(time.Second)
		if n := p.tries(); n < 4 || n > 6 {
			t.Errorf("%d tries within a second, want 50, 100, 200, 400 ms apart", n)
		}
		wait(10 * time.Minute)
		if n := p.tries(); n < 118 || n > 126 {
			t.Errorf("%d tries in ten minutes, want one each 5 s", n)
		}
		if e.Stats().InFlight != 0 {
			t.Error("an attempt is held meanwhile")
		}
		r.release = func(int64) {}
		open.Store(true)
		wait(maxRoomWait)
		if m.places()["done"] != 1 {
			t.Error("not delivered within 5 s once there was a connection")
		}
		m.publish(e, 1, time.Time{})
		synctest.Wait()
		if m.places()["done"] != 2 {
			t.Error("the next one waits")
		}
		wait(time.Hour)
	})
}
