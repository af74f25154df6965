package share

import "sync"

// Pool is a scarce amount that is taken and given back. Nobody waits: who finds
// nothing is told why. It is safe for concurrent use.
type Pool struct {
	all, each int64

	mu    sync.Mutex
	taken int64
	by    map[Party]int64
}

// NewPool returns a Pool of an amount, of which no party holds more than each; a
// platform's token at most half of all. each of 0 means that only the last quarter
// is kept back.
func NewPool(all, each int64) *Pool {
	if each <= 0 {
		each = all
	}
	return &Pool{all: all, each: min(each, all), by: make(map[Party]int64)}
}

// Take takes n for the party, or nothing. The error is [ErrExceeded] or [ErrFull].
// A party that holds nothing may take more than its share at once, if there is
// room: what is larger than a share would never be served else.
func (p *Pool) Take(who Party, n int64) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.by[who]
	most, parties := p.each, len(p.by)
	if who.IsPlatform() {
		most = p.all / 2
	}
	if held == 0 {
		parties++
	}
	switch {
	case held > 0 && held+n > most:
		return ErrExceeded
	case held > 0 && Scarce(p.all, p.taken+n) && !Reserve(p.all, held+n, parties):
		return ErrExceeded
	case p.taken+n > p.all && p.taken > 0:
		return ErrFull
	}
	p.taken += n
	p.by[who] = held + n
	return nil
}

// Give gives n back.
func (p *Pool) Give(who Party, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken -= n
	if p.by[who] -= n; p.by[who] <= 0 {
		delete(p.by, who)
	}
}

// Held is what the party holds.
func (p *Pool) Held(who Party) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.by[who]
}

// Taken is what all hold, and how many they are.
func (p *Pool) Taken() (amount int64, parties int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken, len(p.by)
}
