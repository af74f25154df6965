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
	// seated are its lanes in turn for an attempt. While others wait it is one at most:
	// they are called one by one.
	seated  int
	waiting queue
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

// waitForHost puts the lane behind those that wait for its host.
func (e *Engine) waitForHost(l *lane) {
	e.arrivals++
	l.host.waiting.add(&l.turn, l.inFlight, e.arrivals)
	e.callHost(l.host)
}

func (l *lane) waitsForHost() bool { return l.inTurn() && l.seat == nil }

// callHost has the next of those that wait for the host take its turn, if it may
// start, or sleep until the rate lets it. It is called whenever that may have changed.
func (e *Engine) callHost(h *host) {
	for h.seated == 0 {
		first := h.waiting.first()
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
			e.sit(l)
			return
		}
		e.settle(l) // it changed while it waited
	}
}
