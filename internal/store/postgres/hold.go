package postgres

import (
	"context"
	"sync"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// holdings is what this node has in memory of the rows that its run owns. Memory
// and database must agree: an entry is there before the commit that takes its row
// is sent, and goes when that which gave the row up is known to have been
// committed, and only while it still is of the generation that was given up. So a
// late answer cannot remove the entry of a row that was taken again meanwhile.
type holdings struct {
	mu   sync.Mutex
	last uint64 // generation
	held map[posthorn.ID]holding
	// blind is for tests: generations are not looked at.
	blind bool
}

type holding struct {
	gen uint64
	run int64
}

func newHoldings() *holdings { return &holdings{held: map[posthorn.ID]holding{}} }

// take notes rows that the run is about to own, or owns, and returns the generation.
func (h *holdings) take(run int64, ids ...posthorn.ID) (gen uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	for _, id := range ids {
		h.held[id] = holding{h.last, run}
	}
	return h.last
}

// drop lets go of what is still of the generation that is named; of any, if that
// is 0.
func (h *holdings) drop(holds ...store.Hold) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, d := range holds {
		if d.Gen == 0 || h.blind || h.held[d.ID].gen == d.Gen {
			delete(h.held, d.ID)
		}
	}
}

// runOf is the run that a row is held for; false when it is not held any more, or
// was taken again since.
func (h *holdings) runOf(d store.Hold) (run int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	held, ok := h.held[d.ID]
	return held.run, ok && (d.Gen == 0 || held.gen == d.Gen)
}

// hasFor reports whether a hold is the one by which a row is held for the run.
func (h *holdings) hasFor(run int64, d store.Hold) bool {
	held, ok := h.runOf(d)
	return ok && held == run
}

// unheld keeps the ids that nobody holds for the run.
func (h *holdings) unheld(run int64, ids []int64) (none []int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, id := range ids {
		if held, ok := h.held[posthorn.ID(id)]; !ok || held.run != run {
			none = append(none, id)
		}
	}
	return none
}

func (h *holdings) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.held)
}

// Forget implements [store.Queue].
func (s *Store) Forget(holds ...store.Hold) { s.holdings.drop(holds...) }

// MayAttempt implements [store.Queue]. It waits until this node's lease holds.
func (s *Store) MayAttempt(ctx context.Context, d store.Hold) bool {
	for {
		held, ok := s.holdings.runOf(d)
		may, run, change := s.lease.may()
		switch {
		case !ok, run != 0 && run != held:
			s.holdings.drop(d)
			return false
		case may:
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}
