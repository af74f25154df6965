package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

const refusesNothing = "a rolling restart of three nodes refuses nothing behind a balancer that asks every second"

// defaultDelay is that of --shutdown-delay. A balancer that learned of a stop later
// than late says nothing about the node: this machine let it look too seldom.
const (
	defaultDelay = 2 * time.Second
	late         = defaultDelay * 3 / 4
)

// TestARollingRestartRefusesNothing stops one node after the other by SIGTERM and
// starts it again, while events are published through a balancer. Each is published
// once: what is not answered 202 was refused.
func TestARollingRestartRefusesNothing(t *testing.T) {
	drivesOnly(t)
	t.Parallel()
	rounds, limit := 3, 3*time.Minute
	if *long {
		rounds, limit = 15, 6*time.Minute
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the run took longer than %s", limit))
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 3)
	w.takes = 20 * time.Millisecond // so that some are under way at each stop
	b := newBalancer(t, w)
	p := startPublic(ctx, w, b)
	voids := 0
	for round := 0; round < rounds; {
		node := round % len(w.nodes)
		p.serving(100)
		before := p.refusals()
		learned := w.restart(b, node)
		p.serving(100)
		refused := p.refusals()[len(before):]
		t.Logf("node %d: the balancer knew %s after SIGTERM; %d published, %d refused so far", node, learned.Round(time.Millisecond), w.accepted(), len(before)+len(refused))
		if len(refused) > 0 && learned > late {
			if voids++; voids > rounds {
				t.Fatalf("in %d rounds the balancer looked too late to say anything about the nodes", voids)
			}
			continue
		}
		if len(refused) > 0 {
			t.Errorf("%d publishes were refused, the first ones: %s", len(refused), strings.Join(refused[:min(3, len(refused))], "; "))
		}
		round++
	}
	p.finish()
	w.settle(40 * time.Second)
	s := w.ledger.count()
	for _, f := range w.ledger.wrong {
		t.Error(f)
	}
	t.Logf("%d restarts: %d events accepted, %d deliveries, %d lost, %d came twice", rounds+voids, s.accepted, s.deliveries, s.lost, s.duplicates)
	tally.Count(t, refusesNothing, s.accepted)
}

// restart stops a node as supervisors do, starts it again, and returns when the
// balancer sends to it. learned is when it had ceased to, after the signal.
func (w *world) restart(b *balancer, node int) (learned time.Duration) {
	w.t.Helper()
	e := b.backends[node]
	until := func(what string, cond func() bool) {
		w.t.Helper()
		if err := proof.Until(w.ctx, 5*time.Millisecond, func() (bool, error) { return cond(), nil }); err != nil {
			w.t.Fatalf("%s: %v", what, err)
		}
	}
	asked := time.Now()
	w.signal(node, syscall.SIGTERM)
	until("the balancer learns of the stop", func() bool { return !e.ready.Load() })
	learned = time.Since(asked)
	if code, err := w.nodes[node].Wait(40 * time.Second); err != nil || code != 0 {
		w.t.Errorf("node %d ended with %d, %v\n%s", node, code, err, w.nodes[node].LogTail())
	}
	if err := w.nodes[node].Launch(); err != nil {
		w.t.Fatal(err)
	}
	w.ready(node)
	until("the balancer learns of the start", e.ready.Load)
	return learned
}

// public publishes through a balancer at a steady rate, each event once; half of it
// through one that balances connections, which clients keep.
type public struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup

	mu      sync.Mutex
	next    int
	refused []string
}

func startPublic(ctx context.Context, w *world, b *balancer) *public {
	p := &public{w: w, stop: make(chan struct{})}
	start := time.Now()
	for i := range publishers {
		base := [...]string{b.web, b.wire}[i%2]
		kept := &http.Client{Transport: &http.Transport{}}
		p.wg.Go(func() {
			defer kept.CloseIdleConnections()
			timer := time.NewTimer(0)
			defer timer.Stop()
			for {
				n := p.take()
				timer.Reset(time.Until(start.Add(time.Duration(float64(n) / *rate * float64(time.Second)))))
				select {
				case <-timer.C:
				case <-p.stop:
					return
				}
				p.publish(ctx, proof.API{URL: base, HTTP: kept}, n)
			}
		})
	}
	return p
}

func (p *public) take() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next++
	return p.next - 1
}

func (p *public) publish(ctx context.Context, api proof.API, n int) {
	w := p.w
	e := &event{tenant: n % tenants, n: n, began: time.Now(), data: fmt.Sprintf(`{"n":%d}`, n)}
	id := fmt.Sprintf("r-%x-%d", w.seed, n)
	w.ledger.add(id, e)
	var answer struct {
		Deliveries int `json:"deliveries"`
	}
	api.Token = w.tokens[e.tenant]
	err := api.Call(ctx, http.MethodPost, "/events", fmt.Appendf(nil, `{"id":"%s","type":"cases.updated","data":%s}`, id, e.data), &answer)
	if err == nil {
		w.ledger.accept(id, answer.Deliveries)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refused = append(p.refused, err.Error())
}

func (p *public) refusals() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refused[:len(p.refused):len(p.refused)]
}

// serving waits until so many more events were answered, 202 or not.
func (p *public) serving(n int) {
	p.w.t.Helper()
	answered := func() int { return p.w.accepted() + len(p.refusals()) }
	goal := answered() + n
	if err := proof.Until(p.w.ctx, 5*time.Millisecond, func() (bool, error) { return answered() >= goal, nil }); err != nil {
		p.w.t.Fatal(err)
	}
}

func (p *public) finish() {
	close(p.stop)
	p.wg.Wait()
}
