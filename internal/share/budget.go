package share

import (
	"sync"
	"time"
)

// maxParties bounds what a Budget remembers.
const maxParties = 20_000

// Budget is time that each party may spend: so much at once, and what was spent
// comes back at a rate. It may be overdrawn, since what work costs is known
// afterwards; who has overdrawn waits longer. It is safe for concurrent use.
type Budget struct {
	rate  float64 // of the time that passes
	burst time.Duration

	mu sync.Mutex
	by map[Party]account
}

// account is what a party had left at a time.
type account struct {
	left time.Duration
	at   time.Time
}

// NewBudget returns a Budget of burst at once; rate is the part of passing time
// that comes back: 0.1 is a tenth of a processor.
func NewBudget(rate float64, burst time.Duration) *Budget {
	return &Budget{rate: rate, burst: burst, by: make(map[Party]account)}
}

// Left is what the party may spend now; negative when it has overdrawn.
func (b *Budget) Left(who Party, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.leftOf(who, now)
}

// leftOf is called with mu held.
func (b *Budget) leftOf(who Party, now time.Time) time.Duration {
	a, known := b.by[who]
	if !known {
		return b.burst
	}
	if passed := now.Sub(a.at); passed > 0 {
		a.left += time.Duration(b.rate * float64(passed))
	}
	return min(a.left, b.burst)
}

// Spend takes what work has cost from the party.
func (b *Budget) Spend(who Party, cost time.Duration, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	left := b.leftOf(who, now) - cost
	if _, known := b.by[who]; !known && len(b.by) >= maxParties {
		b.makeRoom(now)
	}
	b.by[who] = account{left, now}
}

// Wait is how long until the party may spend something again; 0 for now.
func (b *Budget) Wait(who Party, now time.Time) time.Duration {
	left := b.Left(who, now)
	if left > 0 {
		return 0
	}
	return max(time.Millisecond, time.Duration(float64(-left)/b.rate))
}

// makeRoom drops parties that have all of their budget again, which is what an
// unknown one has; where there is none among the few that it looks at, one of
// them. It is called with mu held.
func (b *Budget) makeRoom(now time.Time) {
	looks := 0
	for who := range b.by {
		if looks++; looks > 32 {
			return
		}
		if b.leftOf(who, now) >= b.burst || looks == 32 && len(b.by) >= maxParties {
			delete(b.by, who)
		}
	}
}
