package app

import (
	"context"
	"sync"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/store"
)

// maxTesting bounds the tests of endpoints that are under way. What comes beyond
// waits in its endpoint's lane.
const maxTesting = 256

// tester makes the attempts of endpoints' tests, at once: who tests an endpoint
// that fails or has a backlog does not want to wait behind it. It has no part in the
// lanes' pace and limits, and API limits how often it is asked.
type tester struct {
	store   store.Store
	engine  *lane.Engine
	sender  *sender
	policy  posthorn.Policy
	observe func(lane.Observation)

	ctx    context.Context // ends when attempts are cut short
	cancel context.CancelFunc
	slots  chan struct{}
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func newTester(s store.Store, engine *lane.Engine, sender *sender, policy posthorn.Policy, observe func(lane.Observation)) *tester {
	t := &tester{store: s, engine: engine, sender: sender, policy: policy.Once(), observe: observe, slots: make(chan struct{}, maxTesting)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// start begins the attempt of a delivery that this process owns, or gives it to its
// lane.
func (t *tester) start(w store.Work) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return // the next start finds it
	}
	t.wg.Go(func() {
		select {
		case t.slots <- struct{}{}:
			defer func() { <-t.slots }()
			t.attempt(&w)
		default:
			t.giveBack(&w)
		}
	})
}

func (t *tester) attempt(w *store.Work) {
	target, err := t.store.Target(t.ctx, w.Endpoint)
	on := false
	if err == nil {
		on, err = t.store.Sending(t.ctx)
	}
	if err != nil || !on || !target.Endpoint.Active() || target.TenantSuspended {
		t.giveBack(w)
		return
	}
	if !t.store.MayAttempt(t.ctx, w.Hold()) {
		return
	}
	a := t.sender.Send(t.ctx, &target, w)
	done := make(chan struct{})
	o := lane.Observation{Work: w, Target: &target, Attempt: a}
	t.store.Record(store.Result{
		ID: w.ID, Endpoint: w.Endpoint, Tenant: w.Tenant, Gen: w.Gen, Tries: w.Progress.Tries, Attempt: a,
		EndedAt: t.sender.now(), Policy: t.policy, Kind: w.Kind,
	}, func(rec store.Recorded, err error) {
		o.Recorded, o.Err = rec, err
		close(done)
	})
	<-done
	t.observe(o)
	if a.Class == posthorn.ClassLocal {
		t.look(w)
	}
}

// giveBack puts the delivery behind what waits for its endpoint.
func (t *tester) giveBack(w *store.Work) {
	if err := t.store.Park(context.WithoutCancel(t.ctx), []store.Hold{w.Hold()}); err == nil {
		t.look(w)
	} // else the next start finds it
}

// look has the engine look for what the store holds of the endpoint.
func (t *tester) look(w *store.Work) { t.engine.Reserve(w.Tenant, w.Endpoint, w.Size).Stored() }

// drain waits for what is under way, until ctx ends.
func (t *tester) drain(ctx context.Context) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	stop := context.AfterFunc(ctx, t.cancel)
	defer stop()
	t.wg.Wait()
	t.cancel()
}
