package lane

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// gate lets attempts wait for the lease until it is opened.
type gate struct {
	mu    sync.Mutex
	shut  chan struct{} // nil while it is open
	may   bool
	waits int
}

func shutGate() *gate { return &gate{shut: make(chan struct{}), may: true} }

// pass waits until the gate is open.
func (g *gate) pass() {
	g.mu.Lock()
	shut := g.shut
	g.waits++
	g.mu.Unlock()
	if shut != nil {
		<-shut
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waits--
}

// shutGate has every attempt wait for the lease from now on.
func (m *memory) shutGate() *gate {
	g := shutGate()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.may = func(ctx context.Context, _ store.Hold) bool {
		if ctx.Err() == nil {
			g.pass()
		}
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.may && (g.shut == nil || ctx.Err() == nil)
	}
	return g
}

func (g *gate) open(may bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	close(g.shut)
	g.shut, g.may = nil, may
}

func (g *gate) waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waits
}

// The kinds of attempts that a user may have asked for, or not.
var kinds = map[string]func(m *memory, e *Engine) posthorn.ID{
	"ordinary": func(m *memory, e *Engine) posthorn.ID { return m.publish(e, 1, time.Time{}) },
	"by hand": func(m *memory, e *Engine) posthorn.ID {
		id := m.publish(e, 1, time.Now().Add(24*time.Hour))
		m.retry(e, id)
		return id
	},
	"test": func(m *memory, e *Engine) posthorn.ID { return m.test(e, 1) },
}

// What is answered while an attempt waits for the lease, or dials, holds for it: nothing
// is sent by what was true before the wait.
func TestNothingIsSentByWhatWasTrueBeforeTheWait(t *testing.T) {
	const old, changed = 1, 2
	type overtaking struct {
		by       func(m *memory)
		undo     func(m *memory) // nil when it cannot be
		goesOut  bool            // before that, by what is true now
		handOnly bool            // only if a user asked for it
	}
	for what, c := range map[string]overtaking{
		"a deletion":    {by: func(m *memory) { m.change(1, deleteIt) }},
		"another url":   {by: func(m *memory) { m.change(1, func(t *store.Target) { t.Endpoint.URL = "https://b.example.com" }) }, goesOut: true},
		"new secrets":   {by: func(m *memory) { m.change(1, func(t *store.Target) { t.Secrets = []store.Sealed{{ID: changed}} }) }, goesOut: true},
		"a suspension":  {by: func(m *memory) { m.suspend(1, true) }, undo: func(m *memory) { m.suspend(1, false) }},
		"sending/pause": {by: func(m *memory) { m.setSending(false) }, undo: func(m *memory) { m.setSending(true) }},
		"a cancellation": {by: func(m *memory) {
			m.cancel(1, func(*row) bool { return true })
		}},
		"a pause": {by: func(m *memory) { m.change(1, pauseIt) }, undo: func(m *memory) { m.change(1, resumeIt) }, goesOut: true, handOnly: true},
	} {
		for kind, send := range kinds {
			for i, settings := range []posthorn.Settings{{}, {Ordered: true}, {}, {Ordered: true}} {
				dials := i >= 2
				t.Run(fmt.Sprintf("%s/%s/ordered=%v,dials=%v", what, kind, settings.Ordered, dials), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m, r := newMemory(t), newReceiver(t, ok)
						m.endpoint(1, settings, 1)
						m.change1(func(t *store.Target) { t.Endpoint.URL, t.Secrets = "https://a.example.com", []store.Sealed{{ID: old}} })
						var sent []store.Target
						r.check = func(t *store.Target, _ *store.Work) { sent = append(sent, *t) }
						e := start(t, m, r, Config{})
						g := shutGate()
						if dials {
							r.dial = g.pass
						} else {
							g = m.shutGate()
						}
						id := send(m, e)
						wait(time.Second)
						if g.waiting() != 1 {
							t.Fatalf("%d attempts wait", g.waiting())
						}
						c.by(m)
						wait(time.Second)
						g.open(true)
						wait(time.Minute)
						want := 0
						if c.goesOut && (!c.handOnly || kind != "ordinary") {
							want = 1
						}
						if len(sent) != want {
							t.Fatalf("%d attempts after %s, want %d: %+v", len(sent), what, want, sent)
						}
						now, err := m.Target(t.Context(), 1)
						if err != nil {
							t.Fatal(err)
						}
						if n := len(m.row(id).tries); n != len(sent) {
							t.Errorf("%d attempts are recorded, %d were made", n, len(sent))
						}
						for _, s := range sent {
							if s.Endpoint.URL != now.Endpoint.URL || s.Secrets[0].ID != now.Secrets[0].ID || s.Endpoint.Status != now.Endpoint.Status {
								t.Errorf("sent by %+v, true is %+v", s, now)
							}
						}
						if c.undo != nil {
							c.undo(m)
							wait(time.Minute)
							if len(sent) != 1 {
								t.Errorf("%d attempts in the end", len(sent))
							}
						}
					})
				})
			}
		}
	}
}

// A lane that becomes another process's while an attempt waits for the lease: it is
// not made, and nothing of the line is made before it is known who has it.
func TestAnAttemptWhoseLaneBecomesAnothersIsDropped(t *testing.T) {
	for kind, send := range kinds {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m, r := newMemory(t), newReceiver(t, ok)
				m.endpoint(1, ordered, 1)
				e := start(t, m, r, Config{})
				g := m.shutGate()
				id := send(m, e)
				wait(time.Second)
				if g.waiting() != 1 {
					t.Fatalf("%d attempts wait", g.waiting())
				}
				m.mu.Lock()
				m.rows[id].place = "another's"
				m.mu.Unlock()
				next := m.publish(e, 1, time.Time{})
				g.open(false)
				synctest.Wait()
				m.mu.Lock()
				m.may = nil
				m.mu.Unlock()
				wait(time.Minute)
				if got := ids(r.seen(1)); slices.Contains(got, id) || !slices.Contains(got, next) {
					t.Errorf("attempted %v; %d is another's, %d is not", got, id, next)
				}
			})
		})
	}
}

// Wherever a delivery is when its endpoint is deleted, or its event erased, it is let
// go of: memory_test.go has the ledger.
func TestWhatTheStoreSettlesIsLetGoOf(t *testing.T) {
	for what, gone := range map[string]func(m *memory, events []posthorn.ID){
		"deleted": func(m *memory, _ []posthorn.ID) { m.change(1, deleteIt) },
		"erased": func(m *memory, events []posthorn.ID) {
			for _, id := range events {
				m.watch(store.Notice{Kind: store.NoticeErased, Event: id})
			}
		},
	} {
		for _, settings := range []posthorn.Settings{{MaxInFlight: 1}, {Ordered: true}, {}} {
			for step := range 40 {
				t.Run(fmt.Sprintf("%s/ordered=%v/%d", what, settings.Ordered, step), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						m, r := newMemory(t), newReceiver(t, broken)
						m.endpoint(1, settings, 1)
						e := start(t, m, r, Config{QueuePerLane: 4, QueueBurst: 4})
						slot := e.Reserve(1, 1, 100)
						var all []posthorn.ID
						for range 6 {
							all = append(all, m.publish(e, 1, time.Time{}))
						}
						all = append(all, m.test(e, 1), m.publish(e, 1, time.Now().Add(3*time.Millisecond)), m.publish(e, 1, time.Now().Add(30*time.Millisecond)))
						m.retry(e, m.publish(e, 1, time.Now().Add(time.Hour)))
						wait(time.Duration(step) * 500 * time.Microsecond)
						gone(m, all)
						wait(50 * time.Millisecond)
						if what == "deleted" && !slot.Parked() {
							m.mu.Lock()
							m.insert(slot, 1, 1, time.Time{})
						} else {
							slot.Release()
						}
						wait(time.Second)
						if s := e.Stats(); what == "deleted" && (s.Queued != 0 || s.Lanes != 0) {
							t.Errorf("left: %+v", s)
						}
					})
				})
			}
		}
	}
}
