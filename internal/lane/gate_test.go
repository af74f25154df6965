package lane

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Whoever is in the gate when something changes has begun when that is answered. One
// who does not come out of it holds the answer up for settleFor, of its own tenant
// alone.
func TestAChangeWaitsForWhoIsInTheGate(t *testing.T) {
	for what, n := range map[string]store.Notice{
		"endpoint": {Kind: store.NoticeEndpoint, Tenant: 1, Endpoint: 1},
		"tenant":   {Kind: store.NoticeTenant, Tenant: 1},
		"canceled": {Kind: store.NoticeCanceled, Tenant: 1, Endpoint: 1},
		"erased":   {Kind: store.NoticeErased, Tenant: 1, Event: 1},
		"sending":  {Kind: store.NoticeSending},
		"all":      {Kind: store.NoticeAll},
	} {
		for _, c := range []struct{ writes, waits time.Duration }{
			{0, 0}, {3 * time.Millisecond, 3 * time.Millisecond}, {10 * time.Second, settleFor},
		} {
			t.Run(what+"/"+c.writes.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, r := newMemory(t), newReceiver(t, func(*store.Work) posthorn.Attempt { wait(time.Second); return ok(nil) })
					m.endpoint(1, posthorn.Settings{}, 1)
					m.endpoint(2, posthorn.Settings{}, 2)
					r.writes = c.writes
					e := start(t, m, r, Config{})
					m.publish(e, 1, time.Time{})
					synctest.Wait()
					for len(r.seen(1)) == 0 {
						wait(100 * time.Microsecond)
					}
					synctest.Wait()
					if settled := e.Notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: 2, Endpoint: 2}); settled != nil {
						t.Error("another tenant's change waits")
					}
					began := time.Now()
					if settled := e.Notice(n); settled != nil {
						settled()
					}
					if got := time.Since(began); got > c.waits || got < c.waits-time.Millisecond {
						t.Errorf("the answer waited %s for a request that took %s to begin, want %s", got, c.writes, c.waits)
					}
				})
			})
		}
	}
}
