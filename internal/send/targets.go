package send

import "sync"

// maxTargets bounds the URLs that are remembered.
const maxTargets = 16_384

// targets remembers URLs taken apart: an endpoint's is the same for all of its
// attempts. Nothing is judged by it, so that nothing in it can be out of date. It
// is emptied when it is full: a URL is cheap to take apart again.
type targets struct {
	mu sync.RWMutex
	of map[string]*target
}

// get takes a URL apart, or finds what came of it before. Nobody changes the
// target.
func (t *targets) get(g *Guard, raw string) (*target, error) {
	t.mu.RLock()
	known := t.of[raw]
	t.mu.RUnlock()
	if known != nil {
		return known, nil
	}
	parsed, err := g.parse(raw)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil || len(t.of) >= maxTargets {
		t.of = make(map[string]*target)
	}
	t.of[raw] = &parsed
	return &parsed, nil
}
