package soak

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// act is something that is done now and then.
type act struct {
	name  string
	every time.Duration
	do    func(ctx context.Context) error
	// may are statuses that are no fault: somebody else was quicker.
	may []int
}

// errNothing: there was nothing that the act could be done to.
var errNothing = errors.New("nothing to do it to")

// begin does all the acts, each at its pace, and each once at least; the returned function
// lets those under way end.
func (w *world) begin(ctx context.Context, acts []act) (stop func()) {
	w.over = make(chan struct{})
	var wg sync.WaitGroup
	for i, a := range acts {
		first := w.span / 2 * time.Duration(i+1) / time.Duration(len(acts)) // not all at once
		wg.Go(func() { w.repeat(ctx, a, min(first, 2*a.every)) })
	}
	return func() {
		close(w.over)
		wg.Wait()
	}
}

func (w *world) repeat(ctx context.Context, a act, first time.Duration) {
	for pause, again := first, false; ; pause, again = a.every/2+time.Duration(w.pick(int(a.every))), true {
		if w.linger(pause); again && w.isOver() {
			return
		}
		err := a.do(ctx)
		s, answered := errors.AsType[*proof.Status](err)
		switch {
		case err == nil:
			w.did(a.name)
		case errors.Is(err, errNothing):
			w.did(a.name + ": nothing")
		case answered && slices.Contains(a.may, s.Code):
			w.did(fmt.Sprintf("%s: %d", a.name, s.Code))
			w.note(a.name, err)
		default:
			w.ledger.fault("%s: %v", a.name, err)
		}
	}
}

// linger lets time pass between two steps of an act, and none when all is over.
func (w *world) linger(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.over:
	}
}

func (w *world) isOver() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

func (w *world) did(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.done[name]++
}

// note keeps a refusal for the report, the first of each act.
func (w *world) note(name string, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if note := fmt.Sprintf("%s: %.300s", name, err); !slices.ContainsFunc(w.notes, func(s string) bool { return strings.HasPrefix(s, name+": ") }) {
		w.notes = append(w.notes, note)
	}
}

// report prints what was done, and fails for acts that never were.
func (w *world) report() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.done)) {
		fmt.Fprintf(&b, "%s %d, ", name, w.done[name])
	}
	w.t.Logf("done: %s", strings.TrimSuffix(b.String(), ", "))
	for _, n := range w.notes {
		w.t.Logf("refused once or more: %s", n)
	}
	for _, a := range slices.Concat(w.hands(), w.mallory()) {
		tried := w.done[a.name]
		for name, n := range w.done {
			if w.short() && strings.HasPrefix(name, a.name+": ") { // chance may not have had it succeed
				tried += n
			}
		}
		if tried == 0 {
			w.t.Errorf("%s was never done", a.name)
		}
	}
}
