package replay

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// shelf is a store with one replay, and the lane that takes it.
type shelf struct {
	mu     sync.Mutex
	replay posthorn.Replay
	fails  int
	room   int
	taken  []time.Time
}

func (s *shelf) RunningReplays(context.Context, int64, int) ([]posthorn.Replay, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.replay.State != posthorn.ReplayRunning {
		return nil, nil
	}
	return []posthorn.Replay{s.replay}, nil
}

func (s *shelf) FeedReplay(_ context.Context, _ int64, limit int, _ time.Time) (store.Fed, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fails > 0 {
		s.fails--
		return store.Fed{}, errors.New("the disk is away")
	}
	n := min(limit, s.replay.Total-s.replay.Sent)
	if s.replay.Sent += n; s.replay.Sent == s.replay.Total {
		s.replay.State = posthorn.ReplayCompleted
	}
	return store.Fed{Replay: s.replay, Work: make([]store.Work, n), More: s.replay.State == posthorn.ReplayRunning}, nil
}

func (s *shelf) ReplayRoom(int64) int { s.mu.Lock(); defer s.mu.Unlock(); return s.room }
func (s *shelf) Canceled() uint64     { return 0 }
func (s *shelf) Take(works []store.Work, _ uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.room -= len(works)
	for range works {
		s.taken = append(s.taken, time.Now())
	}
}

func (s *shelf) seen() (posthorn.Replay, []time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replay, slices.Clone(s.taken)
}

func start(t *testing.T, s *shelf) *Worker {
	w := New(Config{Store: s, Lanes: s, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	w.Start()
	t.Cleanup(w.Stop)
	return w
}

func TestAReplayKeepsItsRate(t *testing.T) {
	for _, perSecond := range []float64{0.5, 7, 50} {
		synctest.Test(t, func(t *testing.T) {
			s := &shelf{replay: posthorn.Replay{ID: 1, Total: 100, Selection: posthorn.ReplaySelection{RatePerSecond: perSecond}}, room: 1000}
			began := time.Now()
			start(t, s)
			<-time.After(10 * time.Minute)
			replay, taken := s.seen()
			if replay.State != posthorn.ReplayCompleted {
				t.Fatalf("%g a second: %+v", perSecond, replay)
			}
			// Within any second no more than the rate and what may come at once.
			for i, at := range taken {
				if n := int(perSecond+max(2, perSecond/5)) + 1; i >= n && at.Sub(taken[i-n]) < time.Second-busyLook {
					t.Fatalf("%g a second: number %d came %s after number %d", perSecond, i, at.Sub(taken[i-n]), i-n)
				}
			}
			took, least := time.Since(began), time.Duration(float64(95)/perSecond*float64(time.Second))
			if got := taken[99].Sub(began); got < least*9/10 || got > least*12/10+time.Second {
				t.Errorf("%g a second: 100 took %s of %s", perSecond, got, took)
			}
		})
	}
}

func TestAReplayWaitsForRoomAndForTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{replay: posthorn.Replay{ID: 1, Total: 300}, room: 100, fails: 2}
		w := start(t, s)
		<-time.After(1500 * time.Millisecond)
		if _, taken := s.seen(); len(taken) != 0 {
			t.Fatalf("%d were taken while the store failed", len(taken))
		}
		<-time.After(time.Minute)
		if _, taken := s.seen(); len(taken) != 100 {
			t.Fatalf("%d were taken, there was room for 100", len(taken))
		}
		s.mu.Lock()
		s.room = 500
		s.mu.Unlock()
		w.Wake()
		<-time.After(time.Millisecond)
		if _, taken := s.seen(); len(taken) != 300 {
			t.Errorf("%d of 300 were taken", len(taken))
		}
	})
}
