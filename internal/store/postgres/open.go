package postgres

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// opened is how many deliveries a commit opened (or, below 0, finished), by
// tenant.
type opened map[int64]int

// openCounts counts open deliveries in memory, so that a publish can be held to
// its tenant's limit without counting rows. One node alone counts exactly; of
// several each counts anew now and then, as it does not see what others do.
type openCounts struct {
	mu      sync.Mutex
	all     int
	tenants map[int64]int
	since   opened // what this node did since a count began; nil when none is under way
	oldest  posthorn.ID
}

// recountEvery is how often a node counts while there are others.
const recountEvery = 10 * time.Second

// recount counts in the background of other nodes' doings.
func (c *openCounts) recount(ctx context.Context, s *Store) {
	if err := c.load(ctx, s); err != nil && s.stop.Err() == nil {
		s.log.Warn("open deliveries could not be counted", "error", err)
	}
}

func (c *openCounts) tenant(id int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tenants[id]
}

func (c *openCounts) apply(moved opened) {
	if len(moved) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for tenant, n := range moved {
		c.add(tenant, n)
		if c.since != nil {
			c.since[tenant] += n
		}
	}
}

func (c *openCounts) add(tenant int64, n int) {
	c.all += n
	if c.tenants[tenant] += n; c.tenants[tenant] == 0 {
		delete(c.tenants, tenant)
	}
}

// load counts. What this node commits meanwhile may be counted twice or not at
// all: a little too much or too little until the next count.
func (c *openCounts) load(ctx context.Context, s *Store) error {
	c.mu.Lock()
	c.since = opened{}
	c.mu.Unlock()
	tenants, all := map[int64]int{}, 0
	rows, err := s.other.Query(ctx, `SELECT tenant, count(*) FROM due GROUP BY tenant`)
	if err == nil {
		err = eachRow(rows, func(r scanner) error {
			var tenant int64
			var n int
			err := r.Scan(&tenant, &n)
			tenants[tenant], all = n, all+n
			return err
		})
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.tenants, c.all = tenants, all
		for tenant, n := range c.since {
			c.add(tenant, n)
		}
	}
	c.since = nil
	return err
}

// oldestMargin is how far ids of several nodes may be out of the order of their
// commits.
const oldestMargin = time.Minute

// Counts implements [store.Keeper]. The oldest is looked for from about where it
// was found the last time, as rows finish about in the order of their ids.
func (s *Store) Counts(ctx context.Context) (store.Counts, error) {
	if err := s.serving(); err != nil {
		return store.Counts{}, err
	}
	c := &s.open
	c.mu.Lock()
	counts, from := store.Counts{Open: max(c.all, 0)}, c.oldest
	c.mu.Unlock()
	var id posthorn.ID
	err := s.other.QueryRow(ctx, `SELECT coalesce((SELECT id FROM due WHERE id >= $1 ORDER BY id LIMIT 1), 0)`, int64(from)).Scan((*int64)(&id))
	if err != nil {
		return store.Counts{}, fmt.Errorf("count open deliveries: %w", s.readError(ctx, err))
	}
	if id != 0 && counts.Open > 0 {
		c.mu.Lock()
		c.oldest = posthorn.MakeID(id.Time().Add(-oldestMargin), 0, 0)
		c.mu.Unlock()
		counts.Oldest = id.Time()
	}
	return counts, nil
}

// Outlook implements [store.Keeper]. How old a restored database is only the
// database's own tools know.
func (s *Store) Outlook(ctx context.Context, now time.Time) (o store.Outlook, err error) {
	err = s.other.QueryRow(ctx, `SELECT count(*), count(*) FILTER (WHERE (d.next_at <= $1 OR d.run = -1)
		AND p.status = 'active' AND p.deleted_at = 0 AND t.suspended_at = 0 AND t.deleted_at = 0)
		FROM due d LEFT JOIN endpoints p ON p.id = d.endpoint LEFT JOIN tenants t ON t.id = p.tenant`, nanos(now)).Scan(&o.Open, &o.Due)
	if err != nil {
		return store.Outlook{}, s.readError(ctx, err)
	}
	return o, nil
}
