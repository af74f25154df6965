package lane

import "github.com/posthorn/posthorn"

// A tenant's attempts to one host are bounded, however many of its endpoints send
// there: how many at a time, and how many start in a second. A lane whose turn would
// come waits for its host instead, spends nothing and takes no place; other hosts'
// lanes go on. All ports of a name are one host.

// host is what a tenant's lanes share that send to one host.
type host struct {
	key      hostKey
	lanes    int
	inFlight int
	meter
	// seated are its lanes in turn for an attempt, proven and unproven. While others of a
	// kind wait it is one of that kind at most: they are called one by one. A kind does
	// not wait for the other, which may have no place to start in.
	seated  [2]int
	waiting [2]queue
}

type hostKey struct {
	tenant int64
	name   string
}

// joinHost moves the lane to the host of a url, or with "" away from all. A lane that
// is in turn takes its turn again.
func (e *Engine) joinHost(l *lane, url string) {
	var key hostKey
	if url != "" && (e.cfg.HostInFlight > 0 || e.cfg.HostRate > 0) {
		key = hostKey{l.tenant.id, posthorn.HostOf(url)}
	}
	was := l.host
	if was != nil && was.key == key || was == nil && key.name == "" {
		return
	}
	switch {
	case l.seat != nil:
		e.stand(l)
	case l.inTurn():
		l.turn.remove()
	}
	l.host = nil
	if key.name != "" {
		h := e.hosts[key]
		if h == nil {
			h = &host{key: key}
			e.hosts[key] = h
		}
		h.lanes++
		l.host = h
	}
	if was != nil {
		was.lanes--
		e.callHost(was)
		e.letGoHost(was)
	}
}

// letGoHost forgets a host that nobody sends to any more.
func (e *Engine) letGoHost(h *host) {
	if h.lanes == 0 && h.inFlight == 0 {
		delete(e.hosts, h.key)
	}
}

// admits reports whether an attempt to the host may start now. The clock is asked
// only if it was not asked lately enough to know.
func (e *Engine) admits(h *host) bool {
	if e.cfg.HostInFlight > 0 && h.inFlight >= e.cfg.HostInFlight {
		return false
	}
	rate := float64(e.cfg.HostRate)
	return h.wait(rate, e.seen) <= 0 || h.wait(rate, e.tick()) <= 0
}

// waitForHost has the lane wait for its host, where it has waited since.
func (e *Engine) waitForHost(l *lane, since uint64) {
	l.host.waiting[l.kind()].add(&l.turn, l.inFlight, since)
	e.callHost(l.host)
}

func (l *lane) waitsForHost() bool { return l.inTurn() && l.seat == nil }

// next is the first of those that wait and are to be called; nil for none.
func (h *host) next() (first *place) {
	for kind := range h.waiting {
		if p := h.waiting[kind].first(); p != nil && h.seated[kind] == 0 && (first == nil || p.before(first)) {
			first = p
		}
	}
	return first
}

// callHost has the next of those that wait for the host take its turn, if it may
// start, or sleep until the rate lets it. It is called whenever that may have changed.
func (e *Engine) callHost(h *host) {
	for {
		first := h.next()
		if first == nil || e.cfg.HostInFlight > 0 && h.inFlight >= e.cfg.HostInFlight {
			return
		}
		l := first.lane
		if !e.admits(h) {
			e.wakeLane(l, e.cfg.Now().Add(h.wait(float64(e.cfg.HostRate), e.seen)))
			return
		}
		first.remove()
		if _, early := l.early(); l.startable() && !early {
			e.sit(l, first.since)
			continue
		}
		e.settle(l) // it changed while it waited
	}
}
