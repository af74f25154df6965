package lane

import (
	"time"

	"github.com/posthorn/posthorn"
)

const (
	// breakerFailures in a row open the breaker.
	breakerFailures = 5
	minProbeWait    = 5 * time.Second
	maxProbeWait    = 5 * time.Minute
	// minRoomWait is how long a lane without a connection first waits for one where its
	// tenant has as many as it may, and maxRoomWait how long at most; keepWindow is how
	// long a lane asks for no more than it has.
	minRoomWait = 50 * time.Millisecond
	maxRoomWait = 5 * time.Second
	keepWindow  = time.Second
)

// pace decides how many attempts of a lane may be in flight and from when: the
// window, the breaker and the holds. It is pure. Its times are times of the engine's
// life: a step of the wall clock moves nothing.
type pace struct {
	// window grows by one with each success, which doubles it with each round of
	// attempts, and falls to one with a timeout.
	window int
	// failures in a row, local faults left out.
	failures int
	// probeWait is zero while the breaker is closed.
	probeWait time.Duration
	nextProbe time.Duration
	// holdUntil is what the receiver asked for (Retry-After), localUntil what a
	// fault of our own side asks for.
	holdUntil  time.Duration
	localUntil time.Duration
	// roomWait is how long the lane last waited for a connection; the window stays as
	// it is until roomUntil.
	roomWait  time.Duration
	roomUntil time.Duration
	// proven: the last attempt succeeded.
	proven bool
	// usual is how long a success lately took; 0 while none is known.
	usual time.Duration
	meter // of the lane's rate
}

// paceOf is the pace of a lane of which only the stored health is known: after a
// start, or when the lane was let go. The stored health does not tell how many
// probes were made; as each waits twice as long as the one before, the last wait
// was about as long as all that went before. now is the time at a moment of the
// engine's life.
func paceOf(h posthorn.Health, now time.Time, at time.Duration) pace {
	h = h.ReadAt(now)
	p := pace{window: 1, failures: h.Failures}
	p.proven = h.Failures == 0 && !h.LastSuccess.IsZero()
	if h.HoldUntil.After(now) {
		p.holdUntil = at + h.HoldUntil.Sub(now)
	}
	if h.Failures >= breakerFailures {
		p.probeWait = min(max(h.LastFailure.Sub(h.FailingSince), minProbeWait), maxProbeWait)
		p.nextProbe = at + max(h.LastFailure.Add(p.probeWait).Sub(now), 0)
	}
	return p
}

// open reports whether the breaker lets only probes through.
func (p *pace) open() bool { return p.probeWait > 0 }

// limit is how many attempts may be in flight.
func (p *pace) limit(setting int) int {
	if p.open() {
		return 1
	}
	return min(p.window, setting)
}

// notBefore is the earliest time of the next attempt; zero for any.
func (p *pace) notBefore() time.Duration {
	t := max(p.localUntil, p.holdUntil)
	if p.open() {
		t = max(t, p.nextProbe)
	}
	return t
}

// failing reports whether the lane should keep little in memory.
func (p *pace) failing(now time.Duration) bool { return p.open() || p.holdUntil > now }

// observe takes in an attempt that ended at now; probe tells that it was made
// while the breaker was open.
func (p *pace) observe(a *posthorn.Attempt, probe bool, limit int, local, now time.Duration) {
	switch a.Class {
	case posthorn.ClassOK:
		p.failures, p.proven = 0, true
		p.took(a.Duration)
		if p.open() {
			p.probeWait, p.nextProbe, p.window = 0, 0, 1
		}
		// The hold stays: this attempt was under way when it was asked for.
		p.roomWait = 0
		if now >= p.roomUntil {
			p.window = min(p.window+1, max(limit, 1))
		}
		return
	case posthorn.ClassLocal:
		p.window = 1
		p.localUntil = now + local
		return
	case posthorn.ClassTimeout:
		p.window = 1
	}
	p.failures++
	p.proven = false
	if a.RetryAfter > 0 {
		p.holdUntil = max(p.holdUntil, now+min(a.RetryAfter, posthorn.MaxRetryAfter))
	}
	switch {
	case !p.open() && p.failures >= breakerFailures:
		p.probeWait = minProbeWait
		p.nextProbe = now + p.probeWait
	case p.open() && probe:
		p.probeWait = min(2*p.probeWait, maxProbeWait)
		p.nextProbe = now + p.probeWait
	}
}

// crowded takes in that there was no connection for an attempt, while others of the
// lane are in flight. They leave theirs to the next ones, so that the lane goes on with
// as many. One that has none tries again, later each time.
func (p *pace) crowded(inFlight int, now time.Duration) {
	p.window = max(1, min(p.window, inFlight))
	p.roomUntil = now + keepWindow
	if inFlight == 0 {
		p.roomWait = min(max(2*p.roomWait, minRoomWait), maxRoomWait)
		p.localUntil = max(p.localUntil, now+p.roomWait)
	}
}

// A rate of more than catchUpAbove attempts a second may be early by catchUp if
// it was late before, as timers are: a rate of 1000 would become one of 900.
const (
	catchUpAbove = 20
	catchUp      = 5 * time.Millisecond
)

func slack(rate float64) time.Duration {
	if rate > catchUpAbove {
		return catchUp
	}
	return 0
}

// meter keeps a rate.
type meter struct {
	// spent is until when the attempts started have used it up.
	spent time.Duration
}

// started takes in that an attempt was started at a time of the engine's life. It
// counts as the virtual scheduling of ITU-T I.371 (GCRA) does: in any time t at most
// rate × (t + slack) + 1 attempts start.
func (m *meter) started(rate float64, at time.Duration) {
	if m.spent = max(m.spent, at) + interval(rate); rate <= 0 {
		m.spent = 0
	}
}

// wait is how long the rate lets the next attempt wait from a time of the engine's
// life on.
func (m *meter) wait(rate float64, at time.Duration) time.Duration {
	if rate <= 0 {
		return 0
	}
	return max(m.spent-slack(rate)-at, 0)
}

func interval(rate float64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return time.Duration(float64(time.Second) / rate)
}
