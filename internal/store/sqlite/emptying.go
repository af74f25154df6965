package sqlite

import (
	"sync"
	"time"
)

// emptying is what is known of the log that is to be emptied of what was erased.
// Whoever erases asks for a turn; a turn is done when the log was cut to nothing
// after its commit. Its methods may be called concurrently.
type emptying struct {
	mu          sync.Mutex
	asked, done uint64 // turns
	attempts    int
	// oldest is the time of the first erasure that is not done; 0 when all are.
	oldest int64
	// marked: the file says so too, for the next start.
	marked  bool
	blocked time.Time     // since when it has been tried in vain; zero when it has not
	tried   chan struct{} // closed when an attempt has ended
}

func newEmptying() *emptying { return &emptying{tried: make(chan struct{})} }

// erased notes an erasure of a time that is about to be committed.
func (e *emptying) erased(at int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	e.marked = true
	if e.oldest == 0 || at < e.oldest {
		e.oldest = at
	}
}

// ask takes a turn for what was committed before.
func (e *emptying) ask() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.asked++
	return e.asked
}

// attempted counts the writer's attempts.
func (e *emptying) attempted() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.attempts++
}

// turn is the last one that was asked for.
func (e *emptying) turn() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked
}

func (e *emptying) pending() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.asked > e.done
}

func (e *emptying) isDone(turn uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.done >= turn
}

// of reports whether what was erased then may be in the log still. Of two erasures
// at once the one that is done may be taken for one that is not.
func (e *emptying) of(erasedAt time.Time) bool {
	if erasedAt.IsZero() {
		return false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.oldest != 0 && nanos(erasedAt) >= e.oldest
}

// ended notes an attempt: up to which turn the log was emptied, or that it was not.
func (e *emptying) ended(turn uint64, emptied bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case !emptied:
		if e.blocked.IsZero() {
			e.blocked = time.Now()
		}
	default:
		e.done, e.blocked = turn, time.Time{}
		if e.done == e.asked {
			e.oldest = 0
		}
	}
	close(e.tried)
	e.tried = make(chan struct{})
}

// state is whether the turn is done, and else since when the log has been tried in
// vain and what tells of the next attempt's end.
func (e *emptying) state(turn uint64) (done bool, blocked time.Time, tried <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.done >= turn, e.blocked, e.tried
}

// unmark reports whether the file's mark can go: nothing is left to empty.
func (e *emptying) unmark() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.marked || e.asked > e.done {
		return false
	}
	e.marked = false
	return true
}
