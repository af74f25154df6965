package cluster

import (
	"syscall"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
)

// What can be done to a node or to the database. All return what undoes it.

// lease is how long a node that cannot be heard keeps what it owns.
const lease = 10 * time.Second

// kill ends a node by SIGKILL. Undone, it starts again.
func (w *world) kill(node int) (undo func()) {
	end := w.ledger.begin(node, "kill")
	w.nodes[node].Kill()
	end() // nothing is acknowledged to a dead node
	end = w.ledger.begin(node, "absence")
	return func() {
		w.t.Helper()
		if err := w.nodes[node].Launch(); err != nil {
			w.t.Fatal(err)
		}
		w.ready(node)
		end()
	}
}

// halt stops a node, as a machine does that is suspended. Undone, it goes on and
// knows nothing.
func (w *world) halt(node int) (undo func()) {
	end := w.ledger.begin(node, "stop")
	w.signal(node, syscall.SIGSTOP)
	return func() {
		w.t.Helper()
		w.signal(node, syscall.SIGCONT)
		w.ready(node)
		end()
	}
}

func (w *world) signal(node int, s syscall.Signal) {
	w.t.Helper()
	if err := w.nodes[node].Signal(s); err != nil {
		w.t.Fatal(err)
	}
}

// cut parts a node from the database. Undone, the way is open again.
func (w *world) cut(node int, how ill.State) (undo func()) {
	end := w.ledger.begin(node, "cut")
	w.wires[node].Set(how)
	return func() {
		w.t.Helper()
		w.wires[node].Set(ill.Open)
		w.ready(node)
		end()
	}
}

// crash ends the database without letting it finish anything. Undone, it
// recovers.
func (w *world) crash() (undo func()) {
	w.t.Helper()
	end := w.ledger.begin(all, "crash of the database")
	if err := w.db.Kill(); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := w.db.Run(); err != nil {
			w.t.Fatal(err)
		}
		for node := range w.nodes {
			select {
			case <-w.nodes[node].Exited(): // it is being done something else
			default:
				w.ready(node)
			}
		}
		end()
	}
}

// accepting waits until so many more events were accepted.
func (w *world) accepting(p *load, n int) {
	w.t.Helper()
	goal := w.accepted() + n
	err := proof.Until(w.ctx, 5*time.Millisecond, func() (bool, error) {
		if err := p.pace.Wrong(); err != nil {
			return false, err
		}
		return w.accepted() >= goal, nil
	})
	if err != nil {
		w.t.Fatalf("while publishing: %v", err)
	}
}

func (w *world) accepted() int {
	w.ledger.mu.Lock()
	defer w.ledger.mu.Unlock()
	n := 0
	for _, e := range w.ledger.events {
		if !e.accepted.IsZero() {
			n++
		}
	}
	return n
}
