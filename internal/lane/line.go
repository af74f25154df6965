package lane

import (
	"time"

	"github.com/posthorn/posthorn"
)

// Owned lanes get all new deliveries by way of the store's backlog, which
// gives them to one process; see posthorn.Settings.OwnedLane. An ordered one
// attempts one delivery of its line at a time and goes on when that is recorded
// in a final state. What stands aside of the line ([store.Work]) passes it.

// orderedQueue is what an ordered lane keeps in memory: a failure gives it back.
const orderedQueue = 16

// queueReady reports whether the queue holds something whose turn it is.
func (l *lane) queueReady() bool {
	return l.queue.n > 0 && (!l.ordered || l.inLine == 0 || l.aside() != nil)
}

// aside is the first delivery in the queue that stands outside the line.
func (l *lane) aside() *item {
	it := l.queue.head
	for it != nil && !it.work.Aside {
		it = it.next
	}
	return it
}

// nextInLine takes the delivery out of the queue whose turn it is: see queueReady.
func (l *lane) nextInLine() *item {
	if !l.ordered || l.inLine == 0 {
		return l.queue.pop()
	}
	return l.queue.remove(l.aside().work.ID)
}

// standing takes out what was asked for by hand while it stood in no line, and does
// now.
func (e *Engine) standing(l *lane) []parking {
	if !l.ordered {
		return nil
	}
	return e.outOfLine(&l.manual)
}

// outOfLine takes out of a queue what stands in the line, to be given back, and leaves
// what stands aside.
func (e *Engine) outOfLine(q *itemList) (back []parking) {
	var aside itemList
	for q.n > 0 {
		it := q.pop()
		if it.work.Aside {
			aside.push(it)
			continue
		}
		e.uncount(it)
		back = append(back, parkingOf(&it.work))
	}
	*q = aside
	return back
}

// breakLine is told that a delivery of the line went back to the backlog, until a
// time, or that it is another's: what was behind it follows, to be claimed behind
// it again.
func (e *Engine) breakLine(l *lane, until time.Time) {
	if !l.ordered || l.gone {
		return
	}
	back := e.outOfLine(&l.queue)
	l.returns++ // a claim under way took what stands behind
	e.giveBack(l, back)
	l.fresh, l.asked, l.blockedUntil = true, true, until
}

// blocked reports whether asking the store for the backlog is useless now.
func (l *lane) blocked() bool {
	return !l.blockedUntil.IsZero() && l.blockedUntil.After(l.e.cfg.Now())
}

// unblock has the backlog asked for again.
func (e *Engine) unblock(l *lane) {
	l.recheck = l.attended
	if !l.blockedUntil.IsZero() {
		l.blockedUntil, l.fresh = time.Time{}, true
	}
}

// elapsed is the engine's age by the monotonic clock.
func (e *Engine) elapsed() time.Duration { return time.Since(e.made) }

// paceItself has a lane that was just made respect the last attempt that the store
// knows of, which another process may have made.
func (l *lane) paceItself(h posthorn.Health) {
	last := later(h.LastSuccess, h.LastFailure)
	if rate := l.rate(); rate > 0 && !last.IsZero() {
		at := l.e.elapsed() - max(l.e.cfg.Now().Sub(last), 0)
		l.pace.spent = max(l.pace.spent, at+interval(rate))
	}
}
