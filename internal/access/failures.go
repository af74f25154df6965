package access

import (
	"net/netip"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/share"
)

const (
	maxFailures   = 20
	failureWindow = time.Minute
	// maxAddresses bounds the memory that strangers can fill.
	maxAddresses = 10_000
)

// failures counts bad tokens per address, as [share.Subscriber] has it.
type failures struct {
	mu sync.Mutex
	by map[netip.Addr]window
}

type window struct {
	ends  time.Time
	count int
}

// add counts one failure. It returns 0, or, when the address has had its
// failures for this minute, how long it should wait.
func (f *failures) add(from netip.Addr, now time.Time) (wait time.Duration) {
	from = share.Subscriber(from)
	f.mu.Lock()
	defer f.mu.Unlock()
	w, known := f.by[from]
	if !known || !now.Before(w.ends) {
		if !known && len(f.by) >= maxAddresses {
			f.makeRoom(now)
		}
		w = window{ends: now.Add(failureWindow)}
	}
	if w.count >= maxFailures {
		return w.ends.Sub(now)
	}
	w.count++
	f.by[from] = w
	return 0
}

// makeRoom drops what is over among the few addresses that it looks at, and
// where nothing is, one of them: with ten thousand failing, one that gets a few
// tries more does not matter.
func (f *failures) makeRoom(now time.Time) {
	looks := 0
	for addr, w := range f.by {
		if looks++; looks > 32 {
			break
		}
		if !now.Before(w.ends) || looks == 32 && len(f.by) >= maxAddresses {
			delete(f.by, addr)
		}
	}
}
