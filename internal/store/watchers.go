package store

import "sync"

// Watchers are told of changes, one at a time. The zero value has none.
type Watchers struct {
	mu  sync.Mutex
	fns []func(Notice) (settled func())
}

// Add registers fn for [Store.Watch].
func (w *Watchers) Add(fn func(Notice)) {
	w.AddSettling(func(n Notice) func() { fn(n); return nil })
}

// AddSettling registers fn for [Store.WatchSettling].
func (w *Watchers) AddSettling(fn func(Notice) (settled func())) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fns = append(w.fns, fn)
}

// Tell tells all of them and returns what the answer of the change waits for.
func (w *Watchers) Tell(notices ...Notice) (s Settling) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range notices {
		for _, fn := range w.fns {
			if settled := fn(n); settled != nil {
				s = append(s, settled)
			}
		}
	}
	return s
}

// Settling is what the answer of a change waits for.
type Settling []func()

// Wait returns when all of it has settled.
func (s Settling) Wait() {
	for _, settled := range s {
		settled()
	}
}
