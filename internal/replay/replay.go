// Package replay carries replays on: it opens what they selected little by
// little and hands it to the lanes, which send it behind new deliveries. All that
// is known of a replay is in the store, so that another start, or another node,
// goes on where this one stopped.
package replay

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Store is the part of the store that the worker needs; see [store.Replays].
type Store interface {
	RunningReplays(ctx context.Context, after int64, limit int) ([]posthorn.Replay, error)
	FeedReplay(ctx context.Context, id int64, limit int, now time.Time) (store.Fed, error)
}

// Lanes take what a replay opened.
type Lanes interface {
	// ReplayRoom is how many deliveries of replays an endpoint would take now.
	ReplayRoom(endpoint int64) int
	// Canceled counts what was canceled so far, for Take.
	Canceled() uint64
	// Take hands over deliveries that this process owns.
	Take(works []store.Work, canceled uint64)
}

// Config is what a [Worker] is made of; all fields are required.
type Config struct {
	Store Store
	Lanes Lanes
	Now   func() time.Time
	Log   *slog.Logger
}

// Worker carries replays on while Run runs. Its methods may be called
// concurrently.
type Worker struct {
	cfg  Config
	wake chan struct{} // holds one
	stop context.CancelFunc
	ctx  context.Context
	done sync.WaitGroup

	limits map[int64]*rate.Limiter // of running replays, by id
}

const (
	// idleLook is how often replays are looked for that nobody told of: another
	// node's, which stopped.
	idleLook = time.Second
	// busyLook is how often a running replay is looked at when nobody told that
	// there is room.
	busyLook = 100 * time.Millisecond
	// storePause is how long a failing store is let alone.
	storePause = time.Second
	// feedBatch bounds what one commit opens.
	feedBatch = 128
	page      = 100
)

// New returns a worker that does nothing before [Worker.Start].
func New(c Config) *Worker {
	w := &Worker{cfg: c, wake: make(chan struct{}, 1), limits: map[int64]*rate.Limiter{}}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// Start begins, once.
func (w *Worker) Start() { w.done.Go(w.run) }

// Stop ends the work and returns when nothing more is handed over.
func (w *Worker) Stop() {
	w.stop()
	w.done.Wait()
}

// Wake tells that a replay was made or resumed, or that a lane may have room. It
// does not block.
func (w *Worker) Wake() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *Worker) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-timer.C:
		case <-w.wake:
		}
		running, err := w.round()
		switch {
		case w.ctx.Err() != nil:
			return
		case err != nil:
			w.cfg.Log.Warn("replays cannot go on; trying again", "err", err, "again_in", storePause)
			timer.Reset(storePause)
			if !w.rest(storePause) {
				return
			}
		case running:
			timer.Reset(busyLook)
		default:
			timer.Reset(idleLook)
		}
	}
}

// rest waits and reports whether the worker goes on.
func (w *Worker) rest(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// round carries each running replay on as far as its lane has room, and reports
// whether there are any.
func (w *Worker) round() (running bool, err error) {
	seen := map[int64]bool{}
	for after := int64(0); ; {
		list, err := w.cfg.Store.RunningReplays(w.ctx, after, page)
		if err != nil {
			return running, err
		}
		for i := range list {
			r := &list[i]
			after, running, seen[r.ID] = r.ID, true, true
			if err := w.carryOn(r); err != nil {
				return running, err
			}
		}
		if len(list) < page {
			break
		}
	}
	for id := range w.limits {
		if !seen[id] {
			delete(w.limits, id)
		}
	}
	return running, nil
}

// carryOn feeds the lane as long as it has room and the replay has more.
func (w *Worker) carryOn(r *posthorn.Replay) error {
	for w.ctx.Err() == nil {
		now := w.cfg.Now()
		n := min(w.cfg.Lanes.ReplayRoom(r.Endpoint), w.allowed(r, now), feedBatch)
		if n <= 0 {
			return nil
		}
		canceled := w.cfg.Lanes.Canceled()
		fed, err := w.cfg.Store.FeedReplay(w.ctx, r.ID, n, now)
		switch {
		case errors.Is(err, store.ErrFinal), errors.Is(err, store.ErrElsewhere), errors.Is(err, store.ErrNotFound):
			return nil
		case err != nil:
			return err
		}
		w.cfg.Lanes.Take(fed.Work, canceled)
		if l := w.limits[r.ID]; l != nil {
			l.AllowN(now, len(fed.Work))
		}
		if !fed.More {
			w.cfg.Log.Info("replay completed", "replay", r.Ref, "endpoint", r.EndpointRef, "total", fed.Replay.Total, "sent", fed.Replay.Sent, "skipped", fed.Replay.Skipped)
			return nil
		}
	}
	return nil
}

// allowed is how many the replay's rate lets through now.
func (w *Worker) allowed(r *posthorn.Replay, now time.Time) int {
	perSecond := r.Selection.RatePerSecond
	if perSecond <= 0 {
		return feedBatch
	}
	l := w.limits[r.ID]
	if l == nil {
		// A fifth of a second's worth at once, so that the rate is smooth, and no less
		// than two, so that what comes between two looks is not lost. It begins full.
		l = rate.NewLimiter(rate.Limit(perSecond), int(max(2, math.Floor(perSecond/5))))
		w.limits[r.ID] = l
	}
	return int(l.TokensAt(now))
}
