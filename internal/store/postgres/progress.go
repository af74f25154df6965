package postgres

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// progress tells since when something has work and does not move: from when it
// began with it until it succeeded or had no more.
type progress struct {
	mu    sync.Mutex
	since time.Time
}

func (p *progress) begin() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		p.since = time.Now()
	}
}

// end is called when it moved, or has nothing to do.
func (p *progress) end(moved bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if moved {
		p.since = time.Time{}
	}
}

func (p *progress) standsFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.since.IsZero() {
		return 0
	}
	return time.Since(p.since)
}

// Standing implements [store.Mover].
func (s *Store) Standing() []store.Standing {
	if s.lease == nil {
		return nil
	}
	var all []store.Standing
	for _, p := range []struct {
		what string
		of   *progress
	}{{"publisher", &s.publisher.moves}, {"recorder", &s.recorder.moves}, {"renewals of the lease", &s.lease.moves}} {
		if d := p.of.standsFor(); d > 0 {
			all = append(all, store.Standing{What: p.what, For: d})
		}
	}
	return all
}
