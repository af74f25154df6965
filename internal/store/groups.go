package store

import (
	"time"

	"github.com/posthorn/posthorn/internal/share"
)

// A group that is written together has at most groupCallers operations and groupRows
// rows; one with more goes alone.
const (
	groupCallers = 1024
	groupRows    = 5000
)

// While several tenants write, a group is small, so that what comes next waits for
// little. Of small operations as many go together as take some milliseconds. A large one
// goes alone, when no other tenant has a small one waiting or largeTurn groups have gone
// before it, and large ones rest between: see [Groups.Written].
const (
	sharedRows = 512
	largeRows  = 256
	largeTurn  = 32
	// sharedFor is how long the writer is shared after an operation of another tenant
	// than the one before.
	sharedFor = time.Second
	// One that took this long has the next rest as long; the longest rest is maxRest.
	restUnit = time.Millisecond / 2
	maxRest  = 2 * time.Second
)

// What may wait to be written before publishes are refused.
const (
	maxWaiting      = 8192
	maxWaitingBytes = 64 << 20
)

// WaitingRoom bounds what waits to be written: the last quarter is for tenants of which
// little waits. It is safe for concurrent use.
type WaitingRoom struct{ number, bytes *share.Pool }

// NewWaitingRoom returns an empty room.
func NewWaitingRoom() *WaitingRoom {
	return &WaitingRoom{share.NewPool(maxWaiting, 0), share.NewPool(maxWaitingBytes, 0)}
}

// Enter takes a place, or fails with [ErrOverloaded].
func (r *WaitingRoom) Enter(tenant int64, bytes int) error {
	who := share.Tenant(tenant)
	if r.number.Take(who, 1) != nil {
		return ErrOverloaded
	}
	if r.bytes.Take(who, int64(bytes)) != nil {
		r.number.Give(who, 1)
		return ErrOverloaded
	}
	return nil
}

// Leave gives the place back.
func (r *WaitingRoom) Leave(tenant int64, bytes int) {
	who := share.Tenant(tenant)
	r.number.Give(who, 1)
	r.bytes.Give(who, int64(bytes))
}

// Groups holds what waits to be written and says what is written together next:
// everything that waits, up to a bound, as long as it is one tenant's; and for several
// tenants by turns. It is not safe for concurrent use.
type Groups[T any] struct {
	size   func(T) (tenant int64, rows int)
	small  share.Queue[int64, T]
	large  share.Queue[int64, T]
	latest int64     // whose the last operation was
	mixed  time.Time // when it was last not the one's before
	passed int       // groups since a large operation had its turn
	began  time.Time // when one was taken that is being written; zero for none
	rest   time.Time // when the next one may be
}

// NewGroups returns Groups of things of a size in rows, which may be made up: it says what
// they cost. What has the tenant 0 takes turns like a tenant's, and shares nothing.
func NewGroups[T any](size func(T) (tenant int64, rows int)) Groups[T] {
	return Groups[T]{size: size}
}

// Len is how much waits.
func (g *Groups[T]) Len() int { return g.small.Len() + g.large.Len() }

// Add has something wait.
func (g *Groups[T]) Add(x T) {
	tenant, rows := g.size(x)
	if rows > largeRows {
		g.large.Push(tenant, x)
	} else {
		g.small.Push(tenant, x)
	}
	if tenant != g.latest && tenant != 0 {
		if g.latest != 0 {
			g.mixed = time.Now()
		}
		g.latest = tenant
	}
}

// Take returns what is written together next, or nothing: then there may be something
// after wait, or 0 for not before Add. Each group must be followed by Written.
func (g *Groups[T]) Take() (group []T, wait time.Duration) {
	now := time.Now()
	if g.mixed.IsZero() || now.Sub(g.mixed) >= sharedFor {
		return g.together(), 0
	}
	if g.large.Len() == 0 {
		g.passed = 0
	} else {
		wait = g.rest.Sub(now)
		if wait <= 0 && (g.passed >= largeTurn || !g.othersWait()) {
			g.passed, g.began = 0, now
			return []T{g.large.Pop()}, 0
		}
	}
	if group = g.fill(group, &g.small, sharedRows); len(group) > 0 {
		g.passed++
		return group, 0
	}
	return nil, max(wait, 0)
}

// Written tells that the last group is written. If it was a large one, the next may come
// after a rest that grows with the square of its time: twice as many come meanwhile, and
// each waits twice as long. After 5 ms it is 50 ms, after 20 ms 800 ms.
func (g *Groups[T]) Written() {
	if g.began.IsZero() {
		return
	}
	now := time.Now()
	took := min(now.Sub(g.began), maxRest)
	g.rest = now.Add(min(took*took/restUnit, maxRest))
	g.began = time.Time{}
}

// All returns what is next of all that waits, whoever it keeps waiting.
func (g *Groups[T]) All() []T { return g.together() }

// together takes as much as may go together.
func (g *Groups[T]) together() (group []T) {
	if g.large.Len() > 0 && g.passed >= largeTurn {
		g.passed, group = 0, append(group, g.large.Pop())
	}
	group = g.fill(g.fill(group, &g.small, groupRows), &g.large, groupRows)
	if g.passed++; len(group) > 0 && g.large.Len() == 0 {
		g.passed = 0
	}
	return group
}

func (g *Groups[T]) fill(group []T, from *share.Queue[int64, T], most int) []T {
	rows := 0
	for _, x := range group {
		_, n := g.size(x)
		rows += n
	}
	for from.Len() > 0 && len(group) < groupCallers {
		_, n := g.size(from.First())
		if rows += n; len(group) > 0 && rows > most {
			break
		}
		group = append(group, from.Pop())
	}
	return group
}

// othersWait reports whether a tenant has a small operation waiting that is not the one
// whose large operation is next.
func (g *Groups[T]) othersWait() bool {
	tenant, _ := g.size(g.large.First())
	others := g.small.Parties()
	if g.small.Has(0) {
		others--
	}
	if tenant != 0 && g.small.Has(tenant) {
		others--
	}
	return others > 0
}
