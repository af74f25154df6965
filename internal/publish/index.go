package publish

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// index answers which endpoints of a tenant an event type goes to, without
// looking at each. It is of one version of the tenant's endpoints.
type index struct {
	version int64
	// exact holds the endpoints by the types that they name, prefix by what
	// stands before "*" in patterns such as "cases.*", all those with "*". Each
	// list is in order of id and without repetition.
	exact, prefix map[string][]int64
	all           []int64
	// owned holds what is not a free lane; nil when all are.
	owned map[int64]laneKind

	// filters are those of the endpoints that have one; nil when none has.
	filters map[int64]*program

	// entries counts the ids in the lists.
	entries int

	// answers are the types asked for so far: a tenant publishes few.
	mu       sync.RWMutex
	answers  map[string][]int64
	answered int // ids and types in answers
}

// maxAnswered bounds what a tenant with many endpoints and ever new types can
// fill: half a megabyte.
const maxAnswered = 1 << 16

func newIndex(set store.EndpointSet) *index {
	x := &index{
		version: set.Version,
		exact:   make(map[string][]int64), prefix: make(map[string][]int64),
		answers: make(map[string][]int64),
	}
	endpoints := slices.Clone(set.Endpoints)
	slices.SortFunc(endpoints, func(a, b posthorn.Endpoint) int { return cmp.Compare(a.ID, b.ID) })
	for i := range endpoints {
		id := endpoints[i].ID
		x.note(id, &endpoints[i].Settings, set.Shared)
		for _, p := range endpoints[i].Events {
			x.entries++
			if p == "*" {
				x.all = appendOnce(x.all, id)
			} else if prefix, open := strings.CutSuffix(string(p), "*"); open {
				x.prefix[prefix] = appendOnce(x.prefix[prefix], id)
			} else {
				x.exact[string(p)] = appendOnce(x.exact[string(p)], id)
			}
		}
	}
	return x
}

// laneKind is how an endpoint's lane takes new deliveries.
type laneKind uint8

const (
	freeLane laneKind = iota
	ownedLane
	orderedLane
)

func (x *index) note(id int64, s *posthorn.Settings, shared bool) {
	if !s.OwnedLane(shared) {
		return
	}
	if x.owned == nil {
		x.owned = make(map[int64]laneKind)
	}
	if x.owned[id] = ownedLane; s.Ordered {
		x.owned[id] = orderedLane
	}
}

// appendOnce appends an id to a growing list unless it is the last already.
func appendOnce(ids []int64, id int64) []int64 {
	if n := len(ids); n > 0 && ids[n-1] == id {
		return ids
	}
	return append(ids, id)
}

// match returns the endpoints that the type goes to, oldest first. The result is
// shared. It agrees with posthorn.Endpoint.Matches.
func (x *index) match(eventType string) []int64 {
	x.mu.RLock()
	ids, known := x.answers[eventType]
	x.mu.RUnlock()
	if known {
		return ids
	}
	ids = x.find(eventType)
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.answered += 1 + len(ids); x.answered > maxAnswered {
		clear(x.answers)
		x.answered = 1 + len(ids)
	}
	x.answers[strings.Clone(eventType)] = ids
	return ids
}

func (x *index) find(eventType string) []int64 {
	ids := slices.Clone(x.exact[eventType])
	for i, c := range eventType {
		if c == '.' {
			ids = append(ids, x.prefix[eventType[:i+1]]...)
		}
	}
	if !strings.HasPrefix(eventType, posthorn.OperationalPrefix) {
		ids = append(ids, x.all...)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// indexes keeps the index of each tenant that publishes. A commit compares the
// version, so that a stale one does no harm: see Service.Publish.
type indexes struct {
	source   func(ctx context.Context, tenant int64) (store.EndpointSet, error)
	programs programs

	mu      sync.Mutex
	of      map[int64]*loading
	entries int // of those that are there
}

// loading is an index that is there or under way: callers who come meanwhile
// wait for it instead of reading ten thousand endpoints again.
type loading struct {
	ready  chan struct{}
	index  *index
	err    error
	weight int // its part of indexes.entries
}

// What is kept of all tenants together: at most some ten megabytes.
const (
	maxIndexes = 4096
	maxEntries = 1 << 20
)

// get returns an index that is ready.
func (x *indexes) get(ctx context.Context, tenant int64) (*loading, error) {
	x.mu.Lock()
	l := x.of[tenant]
	if l == nil {
		l = &loading{ready: make(chan struct{})}
		x.of[tenant] = l
		x.mu.Unlock()
		// Others wait for it, whatever becomes of this caller.
		x.load(context.WithoutCancel(ctx), tenant, l)
		return l, l.err
	}
	x.mu.Unlock()
	select {
	case <-l.ready: // nearly always: the caller's context is not asked for its channel
		return l, l.err
	default:
	}
	select {
	case <-l.ready:
		return l, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (x *indexes) load(ctx context.Context, tenant int64, l *loading) {
	l.err = store.ErrUnavailable // what those who wait get when source panics
	defer func() {
		close(l.ready)
		x.mu.Lock()
		defer x.mu.Unlock()
		switch {
		case x.of[tenant] != l: // dropped meanwhile
		case l.err != nil:
			x.remove(tenant)
		default:
			l.weight = l.index.entries
			x.entries += l.weight
			x.makeRoom(tenant)
		}
	}()
	set, err := x.source(ctx, tenant)
	if err == nil {
		l.index = x.make(tenant, set)
	}
	l.err = err
}

// make returns the index of a set, which is not kept.
func (x *indexes) make(tenant int64, set store.EndpointSet) *index {
	i := newIndex(set)
	i.filters = x.programs.filters(tenant, set)
	return i
}

// makeRoom lets go of any tenants but the given one until the bounds hold. It is
// called with mu held.
func (x *indexes) makeRoom(but int64) {
	for tenant := range x.of {
		if len(x.of) <= maxIndexes && x.entries <= maxEntries {
			return
		}
		if tenant != but {
			x.remove(tenant)
			x.programs.drop(tenant)
		}
	}
}

// remove is called with mu held.
func (x *indexes) remove(tenant int64) {
	if l := x.of[tenant]; l != nil {
		x.entries -= l.weight
		delete(x.of, tenant)
	}
}

// drop lets go of a tenant's index, or, when only is given, of that one alone:
// another caller may have brought a newer one already.
func (x *indexes) drop(tenant int64, only *loading) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if only == nil || x.of[tenant] == only {
		x.remove(tenant)
	}
}

func (x *indexes) dropAll() {
	x.mu.Lock()
	defer x.mu.Unlock()
	clear(x.of)
	x.entries = 0
}
