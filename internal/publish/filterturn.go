package publish

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/filter"
	"github.com/posthorn/posthorn/internal/share"
)

// FilterTurn is a tenant's turn to have filters compiled and tried outside of a
// publish, which each tenant has one at a time. It is not safe for concurrent use.
type FilterTurn struct {
	time   *filterTime
	tenant int64
	leave  func()
}

// TryFilters waits for the tenant's turn, a second at most; Leave ends it. The error is
// a *posthorn.Error with the code RateLimited: the turn did not come, or the tenant's
// filters have used their time.
func (s *Service) TryFilters(ctx context.Context, tenant int64) (*FilterTurn, error) {
	if wait := s.filterTime.untilReady(tenant); wait > 0 {
		return nil, outOfFilterTime(wait)
	}
	t, err := s.filterTurn(ctx, tenant)
	if err != nil {
		return nil, err
	}
	if wait := s.filterTime.untilReady(tenant); wait > 0 { // spent by who went first
		t.Leave()
		return nil, outOfFilterTime(wait)
	}
	return t, nil
}

// SetFilter is TryFilters for a filter that is being set. A tenant whose filters have
// used their time waits for it, a second at most, and goes on all the same: it may be
// about to replace the filter that takes so long.
func (s *Service) SetFilter(ctx context.Context, tenant int64) (*FilterTurn, error) {
	t, err := s.filterTurn(ctx, tenant)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, maxFilterWait)
	defer cancel()
	s.filterTime.await(ctx, tenant)
	return t, nil
}

func (s *Service) filterTurn(ctx context.Context, tenant int64) (*FilterTurn, error) {
	ctx, cancel := context.WithTimeout(ctx, maxFilterWait)
	defer cancel()
	leave, err := s.filterTime.tries.Enter(ctx, share.Tenant(tenant))
	if err != nil {
		return nil, outOfFilterTime(maxFilterWait)
	}
	return &FilterTurn{s.filterTime, tenant, leave}, nil
}

func outOfFilterTime(wait time.Duration) error {
	return &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: wait,
		Message: "The tenant's filters have used their time for now; wait and try again, and simplify those that work long."}
}

// Compile is [filter.Compile] in the tenant's time.
func (t *FilterTurn) Compile(expression string) (*filter.Filter, error) {
	f, err := filter.Compile(expression)
	t.time.spend(t.tenant, filter.CompileWork(expression, f))
	return f, err
}

// Match is [filter.Filter.Match] in the tenant's time.
func (t *FilterTurn) Match(f *filter.Filter, eventType string, data []byte) (bool, error) {
	d := filter.NewData(data)
	matches, err := f.Match(eventType, d)
	t.time.spend(t.tenant, d.Work())
	return matches, err
}

// Leave ends the turn.
func (t *FilterTurn) Leave() { t.leave() }
