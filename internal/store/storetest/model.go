package storetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Reopenable opens a store and, after that one was closed, the same rows again
// as a new process would. now is the store's clock.
type Reopenable func(t *testing.T, now func() time.Time) (s store.Store, reopen func() store.Store)

// RunModel does random operations on the store and on a model in memory, which
// is simple enough to be seen right, and compares them. The seed is printed
// with a failure; POSTHORN_TEST_SEED repeats it.
func RunModel(t *testing.T, open Reopenable) {
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("POSTHORN_TEST_SEED"), 10, 64); err == nil {
		seed = s
	}
	for i := range 4 {
		seed := seed + uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			t.Logf("POSTHORN_TEST_SEED=%d", seed)
			m := newModel(t, open, seed)
			for range 400 {
				m.step()
			}
			m.check()
		})
	}
}

type modelDelivery struct {
	id       posthorn.ID
	event    *modelEvent
	endpoint *modelEndpoint
	place    string // "", owned, waiting, parked
	progress posthorn.Progress
	reason   posthorn.Reason
	hour     int64 // in which it got the final state that it has, Unix time
	replay   *modelReplay
}

// modelReplay counts what a replay opened by the state that it has since.
type modelReplay struct {
	posthorn.Replay
	ended map[posthorn.State]int
}

type modelEvent struct {
	id         posthorn.ID
	key        string
	hash       [32]byte
	occurred   time.Time
	deliveries int
	kept       time.Time // it does not go before
}

type modelEndpoint struct {
	posthorn.Endpoint
	health posthorn.Health
}

type model struct {
	*world
	*rand.Rand
	clock      atomic.Int64 // now, for the store's goroutines
	reopen     func() store.Store
	suspended  bool
	endpoints  []*modelEndpoint
	events     []*modelEvent
	deliveries []*modelDelivery // by id
	gone       []*modelDelivery // that retention deleted
	replays    []*modelReplay
	last       posthorn.ID
}

func newModel(t *testing.T, open Reopenable, seed uint64) *model {
	m := &model{Rand: rand.New(rand.NewPCG(seed, 0))}
	now := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	m.clock.Store(now.UnixNano())
	s, reopen := open(t, func() time.Time { return time.Unix(0, m.clock.Load()).UTC() })
	m.reopen = reopen
	m.world = newWorldAt(t, s, now)
	return m
}

func (m *model) step() {
	switch n := m.IntN(110); {
	case n >= 108:
		m.replayAll()
	case n >= 105:
		m.cancelOne()
	case n >= 100:
		m.retryOne()
	case n < 5:
		m.endpoints = append(m.endpoints, &modelEndpoint{Endpoint: m.endpoint()})
	case n < 30:
		m.publishSome()
	case n < 60:
		m.recordOne()
	case n < 70:
		m.claimDueAll()
	case n < 78:
		m.claimParkedSome()
	case n < 82:
		m.parkSome()
	case n < 86:
		m.toggle()
	case n < 87:
		m.deleteEndpoint()
	case n < 88:
		m.suspendOrNot()
	case n < 94:
		m.now = m.now.Add(time.Duration(m.IntN(int(4*time.Hour/time.Millisecond))) * time.Millisecond)
		m.clock.Store(m.now.UnixNano())
	case n < 96:
		m.sweepAll()
	case n < 97:
		m.restart()
	default:
		m.check()
	}
}

// pick returns a random element, or the zero value of none.
func pick[T any](r *rand.Rand, list []T) (v T) {
	if len(list) == 0 {
		return v
	}
	return list[r.IntN(len(list))]
}

func (m *model) living() []*modelEndpoint {
	return slices.DeleteFunc(slices.Clone(m.endpoints), func(e *modelEndpoint) bool { return !e.DeletedAt.IsZero() })
}

func (m *model) open() (n int) {
	for _, d := range m.deliveries {
		if d.place != "" {
			n++
		}
	}
	return n
}
