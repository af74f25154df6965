package lane

import "github.com/posthorn/posthorn/internal/store"

// Notice tells the engine of a committed change, as [store.Store.WatchSettling]
// reports it. When what it returns has returned, or at once if that is nil, no attempt
// begins any more by what was true before; those in flight end and are recorded. It
// calls nothing: what changed is read again before the next attempt.
func (e *Engine) Notice(n store.Notice) (settled func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.changed(n)
	return e.leaving(n).settled()
}

// leaving finds out who is in the gate that a change concerns.
func (e *Engine) leaving(n store.Notice) (v leaving) {
	switch n.Kind {
	case store.NoticeEndpoint, store.NoticeCanceled:
		if l := e.lanes[n.Endpoint]; l != nil {
			v.add(l.tenant)
		}
		if n.Endpoint != 0 {
			return v
		}
		fallthrough
	case store.NoticeAll, store.NoticeSending:
		for _, t := range e.tenants {
			v.add(t)
		}
	case store.NoticeTenant, store.NoticeErased:
		v.add(e.tenants[n.Tenant])
	}
	return v
}

// changed takes in what changed.
func (e *Engine) changed(n store.Notice) {
	switch n.Kind {
	case store.NoticeEndpoint:
		// Even without a lane: a resumed endpoint may have a backlog.
		e.outdate(e.lane(n.Endpoint))
	case store.NoticeTenant:
		e.outdateAll(func(l *lane) bool { return l.tenant == nil || l.tenant.id == n.Tenant })
	case store.NoticeCanceled:
		e.takeBack(n.Endpoint)
	case store.NoticeSending:
		e.stopSending()
	case store.NoticeErased:
		e.erased.add(n.Event)
	case store.NoticeParked:
		if e.phase == phaseRunning {
			l := e.lane(n.Endpoint)
			e.unblock(l)
			e.backlogFound(n.Endpoint)
		}
	case store.NoticeDue:
		if e.phase == phaseRunning {
			e.due(e.cfg.Now())
		}
	case store.NoticeAll:
		e.stopSending()
		e.outdateAll(func(*lane) bool { return true })
	}
}

// outdate has the lane's target read again before its next attempt.
func (e *Engine) outdate(l *lane) {
	l.epoch.Add(1)
	l.stale = true
	e.unblock(l)
	e.settle(l)
}

// outdateAll outdates the lanes that have something to do, or that know better
// than the store when the next attempt may start, and lets go of the others: they
// are read when they are needed. Backlogs among them are looked for.
func (e *Engine) outdateAll(which func(*lane) bool) {
	for _, l := range e.lanes {
		switch {
		case !which(l):
		case l.restingState && !l.paced():
			e.forget(l)
		default:
			e.outdate(l)
		}
	}
	e.rescan = true
	e.lookSoon()
	e.poke()
}

// stopSending stops every lane until the switch was read again.
func (e *Engine) stopSending() {
	e.epoch.Add(1)
	e.sending = sendingStale
	e.poke()
}
