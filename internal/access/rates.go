package access

import (
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxRates bounds the tokens whose use is remembered.
const maxRates = 20_000

// rates bounds how often each token is used. It knows tokens by their rows and is
// not touched by Notice: a changed tenant does not fill a token's bucket.
type rates struct {
	perSecond float64
	burst     int

	mu sync.Mutex
	by map[int64]*rate.Limiter
}

// newRates returns nil for no limit. A token may send a second's worth at once.
func newRates(perSecond float64) *rates {
	if perSecond <= 0 {
		return nil
	}
	return &rates{perSecond: perSecond, burst: max(1, int(math.Ceil(perSecond))), by: make(map[int64]*rate.Limiter)}
}

// take counts a request. It returns 0, or how long to wait until the next one is
// taken; a request that is refused does not count.
func (r *rates) take(token int64, now time.Time) time.Duration {
	if r == nil {
		return 0
	}
	r.mu.Lock()
	l := r.by[token]
	if l == nil {
		if len(r.by) >= maxRates {
			r.makeRoom(now)
		}
		l = rate.NewLimiter(rate.Limit(r.perSecond), r.burst)
		r.by[token] = l
	}
	r.mu.Unlock()
	if l.AllowN(now, 1) {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	return max(time.Millisecond, time.Duration(missing/r.perSecond*float64(time.Second)))
}

// makeRoom drops tokens that have a full bucket again, which is what a new one
// has; where there is none among the few that it looks at, one of them.
func (r *rates) makeRoom(now time.Time) {
	looks := 0
	for token, l := range r.by {
		if looks++; looks > 32 {
			break
		}
		if l.TokensAt(now) >= float64(r.burst) || looks == 32 && len(r.by) >= maxRates {
			delete(r.by, token)
		}
	}
}
