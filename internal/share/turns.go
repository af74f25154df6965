package share

import (
	"context"
	"slices"
	"sync"
)

// Turns lets each party do one thing at a time, and so many do theirs at once;
// the others wait, in the order in which they came. It is safe for concurrent use.
type Turns struct {
	places, waiters int

	mu    sync.Mutex
	taken int
	by    map[Party]*line
	// ready are parties that wait for a place and do nothing, in turn.
	ready []*line
}

// line is a party's own queue.
type line struct {
	who   Party
	busy  bool // one of it has a place
	ready bool // it stands in Turns.ready
	wait  []chan struct{}
}

// NewTurns returns Turns with so many places in all, for which at most waiters of
// each party wait.
func NewTurns(places, waiters int) *Turns {
	return &Turns{places: places, waiters: waiters, by: make(map[Party]*line)}
}

// Enter waits for the party's turn. leave must be called once, when the thing is
// done. The error is [ErrExceeded] when too many of the party wait already, or the
// cause of ctx's end.
func (t *Turns) Enter(ctx context.Context, who Party) (leave func(), err error) {
	t.mu.Lock()
	l := t.by[who]
	if l == nil {
		l = &line{who: who}
		t.by[who] = l
	}
	if len(l.wait) >= t.waiters {
		t.mu.Unlock()
		return nil, ErrExceeded
	}
	turn := make(chan struct{})
	l.wait = append(l.wait, turn)
	t.settle(l)
	t.call()
	t.mu.Unlock()
	select {
	case <-turn:
		return sync.OnceFunc(func() { t.leave(l) }), nil
	case <-ctx.Done():
		t.withdraw(l, turn)
		return nil, context.Cause(ctx)
	}
}

// Waiting is how many parties wait for a place.
func (t *Turns) Waiting() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.ready)
}

func (t *Turns) leave(l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taken--
	l.busy = false
	t.settle(l)
	t.call()
}

// withdraw takes back who waits no longer, or the place that it was just given.
func (t *Turns) withdraw(l *line, turn chan struct{}) {
	t.mu.Lock()
	if i := slices.Index(l.wait, turn); i >= 0 {
		l.wait = slices.Delete(l.wait, i, i+1)
		if len(l.wait) == 0 && l.ready {
			t.ready = slices.DeleteFunc(t.ready, func(other *line) bool { return other == l })
			l.ready = false
		}
		t.settle(l)
		t.mu.Unlock()
		return
	}
	t.mu.Unlock()
	t.leave(l) // its turn had come
}

// settle puts the line where its state belongs. It is called with mu held.
func (t *Turns) settle(l *line) {
	switch {
	case len(l.wait) > 0 && !l.busy && !l.ready:
		l.ready = true
		t.ready = append(t.ready, l)
	case len(l.wait) == 0 && !l.busy && !l.ready:
		delete(t.by, l.who)
	}
}

// call gives free places to those whose turn it is. It is called with mu held.
func (t *Turns) call() {
	for t.taken < t.places && len(t.ready) > 0 {
		l := t.ready[0]
		t.ready = t.ready[1:]
		l.ready = false
		turn := l.wait[0]
		l.wait = l.wait[1:]
		l.busy = true
		t.taken++
		close(turn)
	}
}
