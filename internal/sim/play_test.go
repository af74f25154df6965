package sim

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// play is a script that is being run.
type play struct {
	*world
	script script
	cast   []*endpoint // as the script counts them
	gone   map[*endpoint]bool
	events int
}

// emptyFile is a database with its tables: making them takes as long as a
// small world.
var emptyFile = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "posthorn-sim")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "empty.db")
	s, err := sqlite.Open(context.Background(), sqlite.Options{Path: path, Synchronous: "OFF", Poll: -1})
	if err != nil {
		return nil, err
	}
	if err := s.Close(); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// run runs the script in a bubble of its own and returns what the checker says.
func (s script) run(t *testing.T) (said []complaint) {
	empty, err := emptyFile()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "posthorn-0.db"), empty, 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		config := s.Engine
		var mu sync.Mutex
		jitter := rand.New(rand.NewPCG(s.Seed, 1))
		config.Random = func() float64 {
			mu.Lock()
			defer mu.Unlock()
			return 2*jitter.Float64() - 1
		}
		w := newWorld(t, dir, config)
		w.backlog, w.history.calm = s.Backlog, s.Calm
		p := &play{world: w, script: s, gone: map[*endpoint]bool{}}
		said = w.complaints(func(*world) { p.perform() })
		w.history.transitions()
	})
	return said
}

func (p *play) perform() {
	for len(p.tenants) < tenantsPerWorld {
		p.tenant(fmt.Sprint("tenant-", len(p.tenants)))
	}
	for _, r := range p.script.Endpoints {
		e := p.endpointOf(p.tenants[r.Tenant], r.Settings, r.Patterns...)
		p.set(e.host, r.Mood, r.Seed)
		p.cast = append(p.cast, e)
	}
	for _, st := range p.script.Steps {
		p.step(st)
		p.measure()
	}
	p.settle()
}

func (p *play) step(s step) {
	c := chanceOf(s.Seed, 2)
	e := p.cast[s.Who]
	tenant := &p.tenants[s.Who%tenantsPerWorld]
	if p.gone[e] {
		switch s.Do {
		case doPause, doResume, doURL, doPatterns, doSettings, doRotate, doDelete:
			return
		}
	}
	count("step: %s", s.Do)
	switch s.Do {
	case doPublish:
		for range s.N {
			p.send(*tenant, p.event(c))
		}
	case doBatch:
		batch := make([]publish.Event, s.N)
		for i := range batch {
			batch[i] = p.event(c)
		}
		batch[0], batch[s.N-1] = keyed(c.IntN(12)), batch[0]
		p.send(*tenant, batch...)
	case doKeyed:
		p.send(*tenant, keyed(s.N))
	case doConflict:
		p.conflict(*tenant, s.N)
	case doDelayed:
		ev := p.event(c)
		ev.DeliverAt = p.now().Add(s.For)
		p.send(*tenant, ev)
	case doRace:
		p.race(s, c, e)
	case doWait:
		wait(s.For)
	case doPause:
		p.pause(e)
	case doResume:
		p.resume(e)
	case doURL:
		p.move(e, c)
	case doPatterns:
		patterns := c.patterns()
		p.patch(e, func(x *posthorn.Endpoint) { x.Events = patterns })
	case doSettings:
		settings := c.settings(p.script.Calm)
		p.settings(e, settings)
	case doRotate:
		p.rotate(e, s.For)
	case doDelete:
		p.delete(e)
		p.gone[e] = true
	case doCreate:
		if e := p.endpointOf(*tenant, c.settings(p.script.Calm), c.patterns()...); true {
			p.set(e.host, c.mood(p.script.Calm), s.Seed)
			p.cast[s.Who] = e // the one before lives on, unheeded
		}
	case doSuspend:
		p.suspend(tenant, true)
	case doUnsuspend:
		p.suspend(tenant, false)
	case doOff:
		p.sending(false)
	case doOn:
		p.sending(true)
	case doMood:
		p.set(e.host, s.Mood, s.Seed)
	case doClock:
		p.stepClock(s.For)
	case doFault:
		p.run.faults.set(s.Call, fault{left: s.N, late: s.Late, err: c.fault(s.Call)})
	case doFull:
		p.full.Store(true)
	case doRoom:
		p.full.Store(false)
	case doCrash:
		p.crash()
	case doCrashAt:
		p.crashAt(s, c, *tenant)
	case doDrain:
		p.stop()
		wait(s.For)
		p.open()
	case doSweep:
		p.sweep(p.now())
	}
}

func (p *play) stepClock(d time.Duration) {
	if d < 0 {
		count("fault: the clock steps back")
	} else {
		count("fault: the clock steps forward")
	}
	p.world.step(d)
}

func (c chance) fault(on call) error {
	if on == callPublish {
		return pick(c, store.ErrUnavailable, store.ErrFull, store.ErrOverloaded)
	}
	return pick(c, store.ErrUnavailable, store.ErrFull)
}

// event is one that was never published before.
func (p *play) event(c chance) publish.Event {
	p.events++
	size := c.IntN(700)
	if c.one(40) {
		size = 20_000
	}
	return publish.Event{Type: c.eventType(), Data: fmt.Appendf(nil, `{"n":%d,"pad":%q}`, p.events, strings.Repeat("x", size))}
}

// keyed is the event of an id: the same whenever it comes.
func keyed(n int) publish.Event {
	return publish.Event{ID: fmt.Sprint("id-", n), Type: chanceOf(uint64(n), 3).eventType(), Data: fmt.Appendf(nil, `{"id":%d}`, n)}
}

// send publishes and holds the answer against what the API has.
func (p *play) send(t posthorn.Tenant, events ...publish.Event) {
	_, err := p.publishAll(t, events...)
	p.answered(t, err)
}

func (p *play) answered(t posthorn.Tenant, err error) {
	answer, ok := errors.AsType[*posthorn.Error](err)
	switch {
	case err == nil:
		count("answer: 202")
	case errors.Is(err, errCrashed):
		count("answer: none, the process crashed")
	case ok && answer.Code == posthorn.Unavailable && answer.RetryAfter > 0:
		count("answer: 503 with Retry-After")
	case ok && answer.Code == posthorn.Forbidden && t.Suspended():
		count("answer: 403, the tenant is suspended")
	default:
		p.history.wrong(kindAnswer, "publishing ended with %v", err)
	}
}

// conflict publishes other content under an id that is known.
func (p *play) conflict(t posthorn.Tenant, n int) {
	ev := keyed(n)
	if !p.history.known(t.ID, ev.ID) || t.Suspended() {
		return
	}
	ev.Data = []byte(`{"other":true}`)
	_, err := p.publishAll(t, ev)
	if answer, ok := errors.AsType[*posthorn.Error](err); ok && answer.Code == posthorn.Conflict {
		count("answer: 409, the id is known with other content")
		return
	}
	if err == nil {
		p.history.wrong(kindTwice, "%s was taken with other content", ev.ID)
	}
	p.answered(t, err)
}

func (h *history) known(tenant int64, ref string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.byRef[refOf{tenant, ref}] != nil
}

// race publishes from several sides while the endpoint changes.
func (p *play) race(s step, c chance, e *endpoint) {
	var tenant posthorn.Tenant
	for _, t := range p.tenants {
		if t.ID == e.Tenant {
			tenant = t
		}
	}
	var events []publish.Event
	for range s.N {
		events = append(events, p.event(c))
	}
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			for j := i; j < len(events); j += 3 {
				p.send(tenant, events[j])
			}
		})
	}
	if !p.gone[e] {
		switch c.IntN(3) {
		case 0:
			patterns := c.patterns()
			p.patch(e, func(x *posthorn.Endpoint) { x.Events = patterns })
		case 1:
			p.move(e, c)
		case 2:
			p.pause(e)
		}
	}
	wg.Wait()
}

// move changes the endpoint's url to a host of the same kind.
func (p *play) move(e *endpoint, c chance) {
	host := p.newHost()
	p.set(host, c.mood(p.script.Calm), c.Uint64())
	p.patch(e, func(x *posthorn.Endpoint) { x.URL = "http://" + host + "/hook" })
}

// crashAt lets the process die at a point, under load.
func (p *play) crashAt(s step, c chance, t posthorn.Tenant) {
	r := p.run
	p.receivers.tell(func() { r.gate.pass(afterArrival) })
	r.gate.arm(s.Point, c.IntN(3))
	var events []publish.Event
	for range s.N {
		events = append(events, p.event(c))
	}
	published := make(chan struct{})
	go func() {
		defer close(published)
		for _, ev := range events {
			p.send(t, ev)
		}
	}()
	select {
	case <-r.gate.reached:
		count("fault: crash %s", s.Point)
	case <-time.After(s.For):
	}
	p.crash()
	<-published
	p.receivers.tell(nil)
}

// sweep does the housekeeping as of a time.
func (p *play) sweep(now time.Time) {
	for {
		swept, err := p.run.store.Sweep(p.Context(), now, store.Retention{Events: 30 * day, Ran: p.run.sure.For(false)})
		p.ok(err)
		if !swept.More {
			return
		}
	}
}

// measure holds what the engine keeps against its bounds.
func (p *play) measure() {
	const largest = 20_000 + 700
	got := p.run.engine.Stats()
	c := p.script.Engine
	p.history.sample(sample{got, lane.Stats{
		InFlight: c.MaxInFlight, Unrecorded: c.MaxUnrecorded + c.MaxInFlight,
		Queued:      got.Lanes*c.QueueBurst + c.MaxInFlight,
		QueuedBytes: c.QueueBytes + int64(got.Lanes)*largest,
	}})
}

func (h *history) sample(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples = append(h.samples, s)
}
