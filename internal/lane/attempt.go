package lane

import (
	"context"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	minRecordRetry = 100 * time.Millisecond
	maxRecordRetry = 5 * time.Second
)

// carry makes an attempt, and then others that start while few goroutines wait
// for one.
func (e *Engine) carry(it *item) {
	for it != nil {
		e.attempt(it)
		it = e.another()
	}
}

// another returns the next attempt to carry, or nil when that is left to a new
// goroutine.
func (e *Engine) another() *item {
	defer e.idle.Add(-1)
	if e.idle.Add(1) > maxIdle {
		return nil
	}
	select {
	case it := <-e.hand:
		return it
	case <-e.stopWork:
		return nil
	}
}

// attempt takes one delivery from its start to its record.
func (e *Engine) attempt(it *item) {
	w := &it.work
	var unread error
	if w.Body == nil {
		w.Body, unread = e.cfg.Store.Payload(e.attemptCtx, w.Event)
	}
	mine := e.cfg.Store.MayAttempt(e.attemptCtx, w.Hold())
	if !mine && e.attemptCtx.Err() == nil || e.erased.has(w.Event) {
		e.drop(it)
		return
	}
	if !mine || !it.current() {
		e.putBack(it)
		return
	}
	began := e.cfg.Now()
	var a posthorn.Attempt
	if unread != nil {
		e.cfg.Log.Error("the payload of an event cannot be read", "event", w.EventRef(), "error", unread)
		a = posthorn.Attempt{At: began, Class: posthorn.ClassLocal, Detail: "the event's payload cannot be read"}
	} else {
		// It may still wait, to dial for example; what counts is asked at the gate.
		a = e.cfg.Sender.Send(e.attemptCtx, it.target, w, it)
	}
	switch it.turned {
	case turnedBack, turnedCrowded:
		e.putBack(it)
		return
	case turnedErased:
		e.drop(it)
		return
	}
	a.Number = w.Progress.Attempts + 1
	a.Manual = w.Progress.Manual && w.Kind != posthorn.EventTest
	ended := e.cfg.Now()

	e.finished(it, &a)
	policy := e.cfg.Policy.For(it.target.Endpoint.Settings)
	if posthorn.IsTestRef(w.EventKey) {
		policy = policy.Once()
	}
	rec, err := e.record(store.Result{
		ID: w.ID, Endpoint: w.Endpoint, Tenant: w.Tenant, Gen: w.Gen, Tries: w.Progress.Tries,
		Attempt: a, EndedAt: ended, Random: e.cfg.Random(),
		Policy: policy, Kind: w.Kind,
	})
	if rec.Lost && a.Succeeded() {
		e.cfg.Log.Warn("an attempt that was acknowledged is in no record: its delivery is gone, or another process has it", "delivery", w.ID.Text(posthorn.DeliveryPrefix))
	}
	e.recorded(it, rec, err)
	e.cfg.Observe(Observation{
		Work: w, Target: it.target, Attempt: a, Recorded: rec, Err: err,
		Lag: max(began.Sub(later(w.AcceptedAt, w.Progress.NextAt)), 0),
	})
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// finished frees the attempt's place and lets the lane learn from it, before
// the result is recorded: pace does not wait for the disk.
func (e *Engine) finished(it *item, a *posthorn.Attempt) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := it.lane
	e.free(it)
	if e.unrecorded++; e.unrecorded >= e.cfg.MaxUnrecorded {
		e.recording.Begin()
	}
	l.unrecorded++
	if it.work.Kind != posthorn.EventTest {
		wasOpen := l.pace.open()
		l.pace.observe(a, it.probe, it.target.Endpoint.Settings.InFlight(), e.cfg.Policy.LocalRetry, e.elapsed())
		if open := l.pace.open(); a.Class != posthorn.ClassLocal && (!wasOpen || !open || it.probe) {
			l.grant.observe(a.Succeeded(), wasOpen, open, e.cfg.QueuePerLane)
		}
		// A 410 pauses the endpoint when it is recorded; nothing starts until then.
		if it.suspect = a.Status == 410; it.suspect {
			l.suspects++
		}
		e.reseat(l)
		e.trim(l)
	}
	e.settle(l)
	e.dispatch()
}

// trim gives back what a failing lane should not keep in memory.
func (e *Engine) trim(l *lane) {
	now := e.elapsed()
	if l.queue.n <= failingQueue || !l.pace.failing(now) {
		return
	}
	rows := l.failingRows(now)
	if l.queue.n <= rows {
		return
	}
	var keep itemList
	for keep.n < rows {
		keep.push(l.queue.pop())
	}
	back := e.empty(&l.queue)
	l.queue = keep
	e.giveBack(l, back)
}

// putBack undoes the start of an attempt that a notice overtook, or for which there
// was no connection.
func (e *Engine) putBack(it *item) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := it.lane
	e.free(it)
	l.leave(it)
	crowded := it.turned == turnedCrowded
	if crowded {
		l.pace.crowded(l.inFlight, e.elapsed())
	}
	switch {
	case l.gone:
		e.cfg.Store.Forget(it.work.Hold())
	case l.refuses(&it.work), it.cancels != l.cancels, l.ordered && !it.work.Aside && !(crowded && it.current()):
		e.breakLine(l, time.Time{})
		e.giveBack(l, []parking{parkingOf(&it.work)})
	default:
		it.cost = int64(len(it.work.Body)) + itemOverhead
		e.count(it)
		to := &l.queue
		if beside := l.besides(&it.work); beside != nil {
			to = beside
		}
		to.pushFront(it)
	}
	e.settle(l)
	e.dispatch()
	e.checkQuiet()
}

// drop undoes the start of an attempt whose delivery was finished by the store, or
// is another process's by now.
func (e *Engine) drop(it *item) {
	e.cfg.Store.Forget(it.work.Hold())
	e.mu.Lock()
	defer e.mu.Unlock()
	l := it.lane
	e.free(it)
	l.leave(it)
	if l.ordered && !it.work.Aside {
		e.breakLine(l, time.Time{}) // somebody else has the line
	}
	e.settle(l)
	e.dispatch()
	e.checkQuiet()
}

// recording is what the store says of a result.
type recording struct {
	rec store.Recorded
	err error
}

// recordings are channels of an engine that nobody will send to any more.
type recordings struct{ pool sync.Pool }

func (r *recordings) take() chan recording {
	if c, ok := r.pool.Get().(chan recording); ok {
		return c
	}
	return make(chan recording, 1)
}

func (r *recordings) put(c chan recording) { r.pool.Put(c) }

// record writes the result and returns when it is durable. A store that fails
// is asked again until the engine gives up on it: the receiver has been asked,
// so nothing but the record may be repeated.
func (e *Engine) record(r store.Result) (store.Recorded, error) {
	for wait := minRecordRetry; ; wait = min(2*wait, maxRecordRetry) {
		done := e.recordings.take()
		e.cfg.Store.Record(r, func(rec store.Recorded, err error) { done <- recording{rec, err} })
		var got recording
		select {
		case got = <-done:
			e.recordings.put(done)
		case <-e.ctx.Done(): // the store may still answer: the channel is its alone
			return store.Recorded{}, context.Cause(e.ctx)
		}
		if got.err == nil {
			return got.rec, nil
		}
		e.cfg.Log.Warn("a result could not be recorded", "delivery", r.ID.Text(posthorn.DeliveryPrefix), "error", got.err, "again_in", wait)
		// Once the attempts are cut short there is no time to wait for the store.
		if !pause(e.attemptCtx, wait) {
			return store.Recorded{}, got.err
		}
	}
}

// pause waits and reports whether ctx lives.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// recorded takes in what the store made of a result.
func (e *Engine) recorded(it *item, rec store.Recorded, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	l := it.lane
	if it.suspect {
		l.suspects--
	}
	l.leave(it)
	switch {
	case err != nil:
	case l.ordered && (rec.Parked || rec.Lost && !it.work.Aside):
		e.breakLine(l, rec.Progress.NextAt)
	case rec.Parked: // ordered since this attempt began
		e.outdate(l)
	case rec.Lost:
	case rec.Progress.State == posthorn.Pending && !rec.Progress.NextAt.IsZero():
		e.due(rec.Progress.NextAt)
	}
	if rec.Paused != "" {
		e.outdate(l)
	}
	e.unrecorded--
	e.recording.End(e.unrecorded < e.cfg.MaxUnrecorded)
	l.unrecorded--
	e.settle(l)
	e.dispatch()
	e.checkQuiet()
}
