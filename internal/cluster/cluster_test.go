package cluster

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

const (
	promise = "what any node answered 202 arrives, whatever happens to nodes and database"
	inOrder = "an ordered endpoint keeps publish order over nodes, whatever happens to them"
)

// TestClusterLosesNothing does everything once to three nodes under load.
func TestClusterLosesNothing(t *testing.T) {
	t.Parallel()
	if *long {
		t.Skip("the long form stands for it")
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, fmt.Errorf("the run took longer than two minutes"))
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 3)
	w.takes = 50 * time.Millisecond // so that some are under way whenever something happens
	p := w.startLoad(ctx, *rate)
	w.accepting(p, 200)
	stopped := time.Now()
	resume := w.halt(0)
	w.accepting(p, 100)
	restart := w.kill(1)
	w.accepting(p, 100)
	restart()
	heal := w.cut(2, ill.Silent) // shorter than the lease
	w.pass(2 * time.Second)
	heal()
	heal = w.cut(1, ill.Broken)
	w.pass(time.Second)
	heal()
	w.accepting(p, 100)
	w.pass(time.Until(stopped.Add(lease + 2*time.Second)))
	resume() // others have what it had
	w.accepting(p, 200)
	recover := w.crash()
	w.pass(500 * time.Millisecond)
	recover()
	w.accepting(p, 200)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.settle(30 * time.Second)
	s := w.judge(p)
	if s.accepted < 1000 {
		t.Errorf("%d events were accepted: is there load?", s.accepted)
	}
	tally.Count(t, promise, s.deliveries)
	tally.Count(t, inOrder, s.inLine)
}

// TestClusterForAMinute does what chance says to nodes and database.
func TestClusterForAMinute(t *testing.T) {
	if !*long {
		t.Skip("takes two minutes: make cluster")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Minute, fmt.Errorf("the run took longer than five minutes"))
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 3)
	w.takes = 50 * time.Millisecond // so that some are under way whenever something happens
	p := w.startLoad(ctx, *rate)
	// At least one node is left alone at a time.
	until := time.Now().Add(time.Minute)
	for turn := 0; time.Now().Before(until); turn++ {
		node, other := turn%3, (turn+1)%3
		w.accepting(p, 50+random.IntN(200))
		what := random.Perm(6)[0]
		t.Logf("%d to node %d", what, node)
		began := time.Now()
		past := func(d time.Duration) time.Duration { return time.Until(began.Add(d)) }
		switch what {
		case 0:
			undo := w.kill(node)
			w.accepting(p, random.IntN(300))
			undo()
		case 1: // past the lease, and another one dies meanwhile
			undo := w.halt(node)
			w.accepting(p, 100)
			restart := w.kill(other)
			w.accepting(p, 100)
			restart()
			w.pass(past(lease + time.Duration(1000+random.IntN(2000))*time.Millisecond))
			undo()
		case 2, 3: // past the lease
			undo := w.cut(node, [...]ill.State{ill.Silent, ill.Broken}[what-2])
			w.pass(past(lease + time.Duration(1000+random.IntN(2000))*time.Millisecond))
			undo()
		case 4: // within it
			undo := w.cut(node, [...]ill.State{ill.Silent, ill.Broken}[random.IntN(2)])
			w.pass(time.Duration(random.IntN(3000)) * time.Millisecond)
			undo()
		case 5:
			undo := w.crash()
			w.pass(time.Duration(random.IntN(3000)) * time.Millisecond)
			undo()
		}
	}
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.settle(time.Minute)
	s := w.judge(p)
	tally.Count(t, promise, s.deliveries)
	tally.Count(t, inOrder, s.inLine)
}
