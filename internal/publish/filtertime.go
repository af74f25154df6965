package publish

import (
	"context"
	"math"
	"runtime"
	"time"

	"github.com/posthorn/posthorn/internal/share"
)

// What the filters of a tenant may take of a processor: so much at once, and a part of
// passing time that comes back. A usual filter takes some microseconds an event.
const (
	filterBurst = time.Second
	filterRate  = 0.25
)

// A tenant whose filters have used that publishes one request at a time, each of which
// waits so long in all. What is not filtered then is delivered.
const (
	maxFilterWait    = time.Second
	maxFilterWaiters = 1000
	// filterSlice is what a publish spends before it books that and looks again.
	filterSlice = time.Millisecond
)

// filterTime is what tenants spend on filters. The work is counted by
// [filter.Data.Work], not measured.
type filterTime struct {
	budget *share.Budget
	// turns are those of publishes whose tenant has overdrawn, tries those of
	// [FilterTurn]: who sets another filter does not stand behind those publishes. Who
	// has one may be waiting, so there is no end of places.
	turns, tries *share.Turns
}

func newFilterTime(burst time.Duration) *filterTime {
	turns := func() *share.Turns { return share.NewTurns(math.MaxInt, maxFilterWaiters) }
	return &filterTime{share.NewBudget(filterRate, burst), turns(), turns()}
}

func (f *filterTime) spend(tenant int64, work time.Duration) {
	f.budget.Spend(share.Tenant(tenant), work, time.Now())
}

// untilReady is how long until the tenant may spend something; 0 for now.
func (f *filterTime) untilReady(tenant int64) time.Duration {
	return f.budget.Wait(share.Tenant(tenant), time.Now())
}

// await waits until the tenant may spend something. It reports false when ctx ends
// before.
func (f *filterTime) await(ctx context.Context, tenant int64) bool {
	for {
		wait := f.untilReady(tenant)
		if wait == 0 {
			return true
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return false
		}
	}
}

// meter counts what the filters of one publish take.
type meter struct {
	time   *filterTime
	tenant int64
	spent  time.Duration // and not booked yet
	may    time.Duration // be spent before that
	waited time.Duration
	leave  func() // ends the turn; nil for none
	over   bool   // it waits no longer, and no filter is asked any more
}

// ready reports whether a filter may be asked now. With patience it waits for that, at
// most [maxFilterWait] in all.
func (m *meter) ready(ctx context.Context, patient bool) bool {
	switch {
	case m.over:
		return false
	case m.spent < m.may:
		return true
	}
	m.book()
	runtime.Gosched() // a processor is not kept from others for longer than a slice
	if m.time.untilReady(m.tenant) > 0 {
		m.over = !patient || !m.wait(ctx)
	}
	m.may = filterSlice
	return !m.over
}

// wait waits for the tenant's turn, and in it for its time.
func (m *meter) wait(ctx context.Context) (ready bool) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, maxFilterWait-m.waited)
	defer cancel()
	defer func() { m.waited += time.Since(began) }()
	if m.leave == nil {
		leave, err := m.time.turns.Enter(ctx, share.Tenant(m.tenant))
		if err != nil {
			return false
		}
		m.leave = leave
	}
	return m.time.await(ctx, m.tenant)
}

func (m *meter) book() {
	if m.spent > 0 {
		m.time.spend(m.tenant, m.spent)
	}
	m.spent, m.may = 0, 0
}

// end books what was spent and lets the next request of the tenant have its turn.
func (m *meter) end() {
	m.book()
	if m.leave != nil {
		m.leave()
		m.leave = nil
	}
}
