package store

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

// What a tenant keeps is counted by the day of its events' ids: what a commit adds and
// what retention and erasure take away. The counts are durable some seconds later than
// what they count, so a crash may leave them a little wrong; days that are over are
// counted again, see [Recount].

// RowBytes stands for what a row of an event or of a delivery takes beside a payload,
// with its part of indexes and attempts. Weight is what an event takes.
const RowBytes = 256

// Weight is what an event takes whose payload is there.
func Weight(size, deliveries int) int64 { return int64(size) + RowBytes*(1+int64(deliveries)) }

// WeightColumn is Weight in SQL, of the columns of an event; without the payload once
// that is erased.
const WeightColumn = `CASE erased_at WHEN 0 THEN size ELSE 0 END + 256 * (1 + deliveries)`

// KeptKey names what a tenant keeps of a day, in days since 1970.
type KeptKey struct{ Tenant, Day int64 }

// Keeps is how many bytes are added, or below 0 taken away.
type Keeps map[KeptKey]int64

// Add adds bytes of an event.
func (k Keeps) Add(tenant int64, event posthorn.ID, bytes int64) {
	k[KeptKey{tenant, DayOf(event)}] += bytes
}

// Merge adds what others have.
func (k Keeps) Merge(other Keeps) {
	for key, n := range other {
		if k[key] += n; k[key] == 0 {
			delete(k, key)
		}
	}
}

// Keys are those of k in the order in which rows are locked.
func (k Keeps) Keys() []KeptKey {
	return slices.SortedFunc(maps.Keys(k), func(a, b KeptKey) int {
		if a.Day != b.Day {
			return int(a.Day - b.Day)
		}
		return int(a.Tenant - b.Tenant)
	})
}

const day = 24 * time.Hour

// DayOf is the day of an id.
func DayOf(id posthorn.ID) int64 { return id.Time().Unix() / int64(day/time.Second) }

// DayFrom is the lowest id of a day.
func DayFrom(n int64) posthorn.ID {
	return posthorn.MakeID(time.Unix(n*int64(day/time.Second), 0), 0, 0)
}

// Kept is what a tenant keeps in bytes, what all keep, and how many tenants keep
// something.
type Kept struct {
	Own, All int64
	Tenants  int
}

// Room is what is left of where a store keeps its rows, in bytes, and what of it is
// kept for finishing what was accepted.
type Room struct{ Free, Reserve int64 }

// Reserve is what of a disk, or of a room that an operator gave, is kept for
// finishing what was accepted: 5 % or 1 GiB, whichever is less.
func Reserve(total uint64) uint64 { return min(total/20, 1<<30) }

// Keeping is a store that knows what tenants keep, payloads and an estimate of rows,
// and how much room there is. Neither asks a disk or database: both may be called
// for every publish.
type Keeping interface {
	Kept(tenant int64) Kept
	// Room reports false where the room is not known.
	Room() (Room, bool)
	// CountKept has what was counted taken in and returns what is stored about a tenant:
	// for tests and diagnosis. It may take a second.
	CountKept(ctx context.Context, tenant int64) (int64, error)
}

// Ledger sums up what tenants keep. It is safe for concurrent use.
type Ledger struct {
	mu      sync.Mutex
	of      map[int64]int64
	all     int64
	tenants int
}

// Load replaces what the ledger has.
func (l *Ledger) Load(of map[int64]int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of, l.all, l.tenants = map[int64]int64{}, 0, 0
	for tenant, n := range of {
		l.add(tenant, n)
	}
}

// Add takes in changes.
func (l *Ledger) Add(k Keeps) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, n := range k {
		l.add(key.Tenant, n)
	}
}

// add is called with mu held.
func (l *Ledger) add(tenant, n int64) {
	if l.of == nil {
		l.of = map[int64]int64{}
	}
	before := l.of[tenant]
	after := before + n
	l.all += max(after, 0) - max(before, 0)
	switch {
	case before <= 0 && after > 0:
		l.tenants++
	case before > 0 && after <= 0:
		l.tenants--
	}
	if l.of[tenant] = after; after == 0 {
		delete(l.of, tenant)
	}
}

// Kept is what a tenant keeps, and all.
func (l *Ledger) Kept(tenant int64) Kept {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Kept{max(l.of[tenant], 0), l.all, l.tenants}
}

// Recount is a pass over the days that are over, which counts again what tenants keep.
// It is not safe for concurrent use.
type Recount struct {
	day, until int64 // the day that is counted, and the first that is not
	next       posthorn.ID
	sum        map[int64]int64
}

// RecountSlice is how many events a slice of a recount reads at most.
const RecountSlice = 10_000

// settledAfter is how long after its end a day is counted: no publish of it is under
// way then.
const settledAfter = time.Hour

// RecountUntil is the first day that is not to be counted yet.
func RecountUntil(now time.Time) int64 { return now.Add(-settledAfter).Unix() / int64(day/time.Second) }

// recountAll is every how many days all are counted again, and not only those since
// the last pass.
const recountAll = 7

// Begin begins a pass. oldest is the first day of which anything is kept, last the
// until of the last pass, 0 for none. It reports false when none is due.
func (r *Recount) Begin(oldest, last int64, now time.Time) bool {
	until := RecountUntil(now)
	if until == last {
		return false
	}
	if last > until { // a clock was wrong
		last = 0
	}
	from := oldest
	if last > 0 && until%recountAll != 0 && until-last < recountAll {
		from = max(oldest, last)
	}
	*r = Recount{day: from, until: until, next: DayFrom(from), sum: map[int64]int64{}}
	return true
}

// Active reports whether a pass is under way.
func (r *Recount) Active() bool { return r.sum != nil }

// Until is the first day that the pass does not count.
func (r *Recount) Until() int64 { return r.until }

// Over reports whether the pass has counted all its days.
func (r *Recount) Over() bool { return r.day >= r.until }

// Slice is what is to be read next: events from an id on, below another.
func (r *Recount) Slice() (from, below posthorn.ID) { return r.next, DayFrom(r.day + 1) }

// Take takes in what a slice had: bytes by tenant, the highest id, and how many events
// it read. It reports true when the day is complete: Day and Sum are to be stored.
func (r *Recount) Take(bytes map[int64]int64, last posthorn.ID, events int) (complete bool) {
	for tenant, n := range bytes {
		r.sum[tenant] += n
	}
	r.next = last + 1
	return events < RecountSlice
}

// Day and what was counted of it, by tenant.
func (r *Recount) Day() (n int64, sum map[int64]int64) { return r.day, r.sum }

// Leave goes on to the next day if something of the one that is counted was taken away
// since it was begun: the count would be too high. Such a day is the oldest one; what
// is wrong of it goes with it.
func (r *Recount) Leave(k Keeps) {
	for key := range k {
		if r.Active() && key.Day == r.day {
			r.NextDay()
			return
		}
	}
}

// NextDay goes on to the next day.
func (r *Recount) NextDay() {
	r.day++
	r.next, r.sum = DayFrom(r.day), map[int64]int64{}
}

// Corrections are what makes the stored counts of a day those that were counted.
func Corrections(n int64, counted, stored map[int64]int64) Keeps {
	k := Keeps{}
	for tenant, bytes := range counted {
		if d := bytes - stored[tenant]; d != 0 {
			k[KeptKey{tenant, n}] = d
		}
	}
	for tenant, bytes := range stored {
		if _, ok := counted[tenant]; !ok && bytes != 0 {
			k[KeptKey{tenant, n}] = -bytes
		}
	}
	return k
}
