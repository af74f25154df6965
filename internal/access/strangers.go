package access

import (
	"context"
	"math"
	"net/netip"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/share"
)

// What tokens that fail may make for work: each address so much at once, and all
// together. A part of passing time comes back.
const (
	strangerBurst, strangerRate   = 10 * time.Millisecond, 0.01
	strangersBurst, strangersRate = 100 * time.Millisecond, 0.1
)

// What a token that fails is counted for, whatever it took: a look into the store, the
// reading of a JWT, each signature that is tried.
const (
	lookWork      = 100 * time.Microsecond
	readWork      = 50 * time.Microsecond
	signatureWork = 100 * time.Microsecond
)

const (
	// maxStrangersAtOnce bounds the addresses that have overdrawn and have work done for
	// them at the same time.
	maxStrangersAtOnce = 32
	// maxWaiting and maxWaitingOfAddress bound the requests that wait for an identity
	// provider's keys: what has no place is told to try again.
	maxWaiting, maxWaitingOfAddress = 1024, 256
	// maxUnknown bounds the hashes of unknown tokens that are remembered.
	maxUnknown = 10_000
)

// strangers bounds the work for tokens that are not known: nobody can say before it
// whether one is valid. So none is refused for what others have spent. It waits until
// what failed is made up for, and where its own address has failed often, for its turn
// too: behind such an address one is looked at after the other. Tokens that are known
// wait for nothing.
//
// It goes by the passing of time, not by the date. It is safe for concurrent use.
type strangers struct {
	each, all *share.Budget
	turns     *share.Turns
	waiting   *share.Pool // for keys

	mu sync.Mutex
	// unknown are hashes that the store was asked for in vain.
	unknown map[[32]byte]struct{}
}

func newStrangers() *strangers {
	return &strangers{
		each: share.NewBudget(strangerRate, strangerBurst), all: share.NewBudget(strangersRate, strangersBurst),
		turns:   share.NewTurns(maxStrangersAtOnce, math.MaxInt), // connections are bounded elsewhere
		waiting: share.NewPool(maxWaiting, maxWaitingOfAddress),
		unknown: make(map[[32]byte]struct{}),
	}
}

// enter waits until work may be done for a token from the address. leave must be called
// when it is done. The error is ctx's.
func (s *strangers) enter(ctx context.Context, from netip.Addr) (leave func(), err error) {
	leave = func() {}
	if s.each.Left(share.Address(from), time.Now()) <= 0 {
		if leave, err = s.turns.Enter(ctx, share.Address(from)); err != nil { // ctx has ended
			return nil, ctx.Err()
		}
	}
	for {
		wait := s.all.Wait(share.Party{}, time.Now())
		if wait == 0 {
			return leave, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			leave()
			return nil, ctx.Err()
		}
	}
}

// failed counts what was done for a token that failed.
func (s *strangers) failed(from netip.Addr, work time.Duration) {
	now := time.Now()
	s.each.Spend(share.Address(from), work, now)
	s.all.Spend(share.Party{}, work, now)
}

// isUnknown reports whether the store was asked for the hash in vain.
func (s *strangers) isUnknown(hash [32]byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, unknown := s.unknown[hash]
	return unknown
}

func (s *strangers) remember(hash [32]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unknown) >= maxUnknown {
		for other := range s.unknown {
			delete(s.unknown, other)
			break
		}
	}
	s.unknown[hash] = struct{}{}
}

// forget has all unknown hashes asked for again.
func (s *strangers) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.unknown)
}
