package lane

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// at adds active endpoints of a tenant with a url.
func (m *memory) at(tenant int64, url string, ids ...int64) {
	m.endpoint(tenant, posthorn.Settings{}, ids...)
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		m.targets[id].Endpoint.URL = url
	}
}

// moveTo changes an endpoint's url.
func moveTo(url string) func(*store.Target) {
	return func(t *store.Target) { t.Endpoint.URL = url }
}

// However many endpoints a tenant has at a host, so many attempts are under way to it
// and no more. They take no place from its other hosts, nor from another tenant at the
// same host.
func TestAttemptsToOneHostAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.Endpoint <= 100 {
				wait(5 * time.Second)
			}
			return ok(w)
		})
		for id := range int64(100) { // whatever is beside the name
			m.at(1, fmt.Sprintf("https://%s:%d/%d?q=%d", []string{"HOOKS.example.com", "hooks.example.com", "hooks.example.com."}[id%3], 8000+id, id, id), 1+id)
		}
		m.at(1, "https://other.example.com", 200)
		m.at(2, "https://hooks.example.com", 300)
		m.commit = 0
		e := start(t, m, r, Config{HostInFlight: 16})
		for range 4 {
			for _, id := range run(1, 100) {
				m.publish(e, id, time.Time{})
			}
		}
		began := time.Now()
		for range 10 {
			for range 5 {
				m.publish(e, 200, time.Time{})
				m.publish(e, 300, time.Time{})
			}
			synctest.Wait()
			if here, there := len(r.seen(200)), len(r.seen(300)); here != there || here%5 != 0 || here == 0 {
				t.Errorf("%d attempts to another host, %d of another tenant, both want all", here, there)
			}
			if n := m.held(r, 1); n != 16 {
				t.Fatalf("%d attempts are under way to one host, want 16", n)
			}
			if n := e.Stats().InFlight; n != 16 {
				t.Errorf("%d places are taken, want 16", n)
			}
			wait(time.Second)
		}
		// All places are used as soon as they are free, and lanes take turns.
		for m.places()["done"] < 500 {
			wait(time.Second)
		}
		if took := time.Since(began); took > 126*time.Second {
			t.Errorf("400 attempts of 5 s by 16 at a time took %s, want 125 s", took)
		}
		for id, most := range r.most {
			if id <= 100 && most > 1 {
				t.Errorf("endpoint %d held %d attempts while others waited for the host", id, most)
			}
		}
		if len(e.hosts) != 3 {
			t.Errorf("%d hosts are known, want 3", len(e.hosts))
		}
	})
}

// In any time t at most rate × (t + 5 ms) + 1 attempts of a tenant to a host start, and
// while enough wait no fewer.
func TestAttemptsToOneHostKeepARate(t *testing.T) {
	for _, rate := range []int{7, 500} {
		t.Run(fmt.Sprint(rate), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, r := newMemory(t), newReceiver(t, ok)
				m.at(1, "https://hooks.example.com", run(1, 50)...)
				m.at(1, "https://other.example.com", 100)
				m.commit = 0
				e := start(t, m, r, Config{HostRate: rate})
				for range 20 {
					for _, id := range run(1, 50) {
						m.publish(e, id, time.Time{})
					}
				}
				m.publish(e, 100, time.Time{})
				synctest.Wait()
				if len(r.seen(100)) != 1 {
					t.Error("another host waits")
				}
				wait(time.Duration(1100/rate) * time.Second)
				var at []time.Time
				for _, q := range r.seen(0) {
					if q.endpoint != 100 {
						at = append(at, q.at)
					}
				}
				if len(at) != 1000 {
					t.Fatalf("%d attempts of 1000", len(at))
				}
				for i := range at {
					for _, n := range []int{1, 10, 100} {
						if i+n >= len(at) {
							continue
						}
						took := at[i+n].Sub(at[i]) + slack(float64(rate))
						if most := float64(rate)*took.Seconds() + 1e-6; float64(n) > most {
							t.Fatalf("%d attempts after one within %s", n, took)
						}
					}
				}
				if took, want := at[999].Sub(at[0]), time.Duration(1000/float64(rate)*float64(time.Second)); took > want {
					t.Errorf("1000 attempts took %s, want %s", took, want)
				}
			})
		})
	}
}

// Endpoints that hang and wait for a place, after they have waited for their host, keep
// none waiting that works at the same host.
func TestWhoWaitsForAPlaceKeepsNobodyFromItsHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt {
			if w.Endpoint <= 100 {
				return hang(w)
			}
			return ok(w)
		})
		m.at(1, "https://hooks.example.com", run(1, 100)...)
		m.at(1, "https://hooks.example.com", 200)
		m.commit = 0
		e := start(t, m, r, Config{MaxInFlight: 20, HostRate: 100})
		m.publish(e, 200, time.Time{})
		wait(time.Second)
		for _, id := range run(1, 100) {
			m.publish(e, id, time.Time{})
		}
		wait(time.Second)
		for i := range 20 {
			m.publish(e, 200, time.Time{})
			wait(50 * time.Millisecond)
			if n := len(r.seen(200)); n != 2+i {
				t.Errorf("%d attempts to the endpoint that works, want %d", n, 2+i)
			}
		}
		wait(24 * time.Hour)
	})
}

// A lane that waits for its host may change: it is paused, deleted, moved to another
// host, asked for something by hand. Others that wait go on, and nothing is lost.
func TestLanesThatWaitForAHostMayChange(t *testing.T) {
	for name, change := range map[string]func(*memory, *Engine){
		"pause":  func(m *memory, _ *Engine) { m.change(2, pauseIt) },
		"delete": func(m *memory, _ *Engine) { m.change(2, deleteIt) },
		"move":   func(m *memory, _ *Engine) { m.change(2, moveTo("https://other.example.com")) },
		"settings": func(m *memory, _ *Engine) {
			m.settings(2, posthorn.Settings{Ordered: true})
		},
		"suspend": func(m *memory, _ *Engine) { m.suspend(1, true); m.suspend(1, false) },
		"sending": func(m *memory, _ *Engine) { m.setSending(false); wait(time.Minute); m.setSending(true) },
		"all":     func(_ *memory, e *Engine) { e.Notice(store.Notice{Kind: store.NoticeAll}) },
		"erase":   func(_ *memory, e *Engine) { e.Notice(store.Notice{Kind: store.NoticeErased, Event: 1}) },
	} {
		for limit, c := range map[string]Config{"in flight": {HostInFlight: 1}, "rate": {HostRate: 1}} {
			t.Run(name+"/"+limit, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m, r := newMemory(t), newReceiver(t, func(w *store.Work) posthorn.Attempt { wait(time.Second); return ok(w) })
					m.at(1, "https://hooks.example.com", 1, 2, 3)
					m.commit = 0
					e := start(t, m, r, c)
					m.publish(e, 1, time.Time{})
					synctest.Wait()                    // it is attempted
					for _, id := range []int64{2, 3} { // the second is the first in line
						m.publish(e, id, time.Time{})
						m.publish(e, id, time.Time{})
						synctest.Wait()
					}
					change(m, e)
					wait(time.Minute)
					want := map[string]int{"done": 5}
					switch {
					case name == "pause":
						want = map[string]int{"done": 3, "parked": 2}
					case name == "delete":
						want = map[string]int{"done": 3, "owned": 2} // forgotten: the store cancels them
					}
					if got := m.places(); fmt.Sprint(got) != fmt.Sprint(want) {
						t.Errorf("the deliveries: %v, want %v", got, want)
					}
					m.change(2, func(t *store.Target) { t.Endpoint.URL = "https://hooks.example.com" })
					m.publish(e, 3, time.Time{})
					wait(time.Minute)
					if n := len(r.seen(3)); n != 3 {
						t.Errorf("%d attempts to an endpoint beside it, want 3", n)
					}
				})
			})
		}
	}
}

// A world of tenants, hosts, slow and failing endpoints with few places and limits:
// the limits are kept at every attempt's start, and all is delivered.
func TestLimitsHoldAndNothingStarvesInRandomWorlds(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	for range 12 {
		world := rand.New(rand.NewPCG(random.Uint64(), 1))
		synctest.Test(t, func(t *testing.T) { limitedWorld(t, world) })
	}
}

func limitedWorld(t *testing.T, random *rand.Rand) {
	c := Config{MaxInFlight: 1 + random.IntN(40), HostInFlight: random.IntN(6), HostRate: random.IntN(60), QueuePerLane: 1 + random.IntN(40)}
	takes := make([]time.Duration, 40)
	host := make([]string, 40)
	m := newMemory(t)
	for i := range takes {
		takes[i] = time.Duration(random.IntN(3000)) * time.Millisecond
		host[i] = fmt.Sprintf("https://%d.example.com/", random.IntN(4))
		m.at(int64(i%5), host[i], int64(i))
		m.targets[int64(i)].Endpoint.Settings.Ordered = random.IntN(5) == 0
	}
	under := map[string]int{} // by tenant and host
	var r *receiver
	r = newReceiver(t, func(w *store.Work) posthorn.Attempt {
		wait(takes[w.Endpoint])
		r.mu.Lock()
		defer r.mu.Unlock()
		under[fmt.Sprint(w.Tenant, host[w.Endpoint])]--
		if w.Endpoint%7 == 0 && w.Progress.Attempts == 0 {
			return broken(w)
		}
		return ok(w)
	})
	r.check = func(_ *store.Target, w *store.Work) {
		r.mu.Lock()
		defer r.mu.Unlock()
		key := fmt.Sprint(w.Tenant, host[w.Endpoint])
		if under[key]++; c.HostInFlight > 0 && under[key] > c.HostInFlight {
			t.Errorf("%d attempts of a tenant to %s at a time with %+v", under[key], host[w.Endpoint], c)
		}
	}
	e := start(t, m, r, c)
	for range 600 {
		m.publish(e, random.Int64N(40), time.Time{})
		switch random.IntN(40) {
		case 0:
			id := random.Int64N(40)
			m.change(id, pauseIt)
			wait(time.Duration(random.IntN(1000)) * time.Millisecond)
			m.change(id, resumeIt)
		case 1:
			e.Notice(store.Notice{Kind: store.NoticeAll})
		}
	}
	for range 1000 {
		wait(time.Minute)
		if m.places()["done"] == 600 {
			break
		}
	}
	if n := m.places(); n["done"] != 600 {
		t.Errorf("of 600 deliveries: %v with %+v", n, c)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	held := e.inFlight + e.holders + e.unproven
	for _, h := range e.hosts {
		held += h.inFlight + h.seated[0] + h.seated[1] + len(h.waiting[0].list) + len(h.waiting[1].list)
	}
	if held != 0 || e.flights.oldest != nil || e.flights.newest != nil || len(e.turns[0].list)+len(e.turns[1].list) != 0 {
		t.Errorf("with nothing to do the engine counts %d", held)
	}
}
