package lane

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
)

// TestAFullMemoryIsNotOthers: a tenant whose endpoints hang fills what it may fill of the
// memory, and no other's new deliveries are parked for it.
func TestAFullMemoryIsNotOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, hang)
		m.commit = 0
		const most = 1 << 20
		e := start(t, m, r, Config{QueueBytes: most})
		var hostile []int64
		for i := range 300 {
			hostile = append(hostile, int64(100+i))
		}
		m.endpoint(1, posthorn.Settings{MaxInFlight: 1}, hostile...)
		m.endpoint(2, posthorn.Settings{MaxInFlight: 1}, 1)
		for range 20 {
			for _, id := range hostile {
				m.publish(e, id, time.Time{})
			}
		}
		// Each lane may have one more.
		if n := e.Stats().QueuedBytes; n < most/2 || n > most*3/4+int64(len(hostile))*claimCost {
			t.Errorf("the tenant's queues hold %d bytes of %d", n, most)
		}
		if m.places()["parked"] == 0 {
			t.Fatal("the memory is not full")
		}
		for i := range 50 {
			id := m.publish(e, 1, time.Time{})
			if place := m.row(id).place; place != "owned" {
				t.Fatalf("delivery %d of another tenant is %s", i, place)
			}
		}
		r.mu.Lock()
		r.answer = ok
		r.mu.Unlock()
		wait(24 * time.Hour)
		if n := e.Stats().QueuedBytes; n != 0 || len(e.held.by) != 0 {
			t.Errorf("%d bytes of %d tenants are still counted", n, len(e.held.by))
		}
	})
}

// TestAttendantsGoByTenant: a thousand lanes of a tenant that wait for the store do not
// keep another's waiting.
func TestAttendantsGoByTenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, ok)
		m.commit = 10 * time.Millisecond
		e := start(t, m, r, Config{})
		var hostile []int64
		for i := range 1000 {
			hostile = append(hostile, int64(100+i))
		}
		m.endpoint(1, posthorn.Settings{}, hostile...)
		m.endpoint(2, posthorn.Settings{}, 1)
		for _, id := range hostile {
			e.Reserve(1, id, 1).Release()
		}
		e.Reserve(2, 1, 1).Release()
		wait(25 * time.Millisecond) // two reads of each attendant
		e.mu.Lock()
		known := e.lanes[1] != nil && e.lanes[1].known()
		waiting := e.services.Len()
		e.mu.Unlock()
		if !known || waiting < 900 {
			t.Errorf("its target is known: %v; %d others wait, two reads of each", known, waiting)
		}
		wait(time.Minute)
	})
}
