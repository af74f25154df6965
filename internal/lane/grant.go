package lane

import "time"

// grant is how much a lane may have in memory of a backlog, by what it lately did
// with it. Taking a row into memory and giving it back are a write each, so an
// opened breaker gives back a part and not all, and what is taken grows with what
// was attempted. No more is given back than was attempted before, however often
// the breaker opens.
type grant struct {
	rows int
	// tried and succeeded count since the breaker closed, misses the probes that
	// failed since it opened.
	tried, succeeded, misses int
}

// shortHold is what a lane may be asked to wait and keep its grant.
const shortHold = time.Minute

// newGrant is that of a lane that nothing is known against.
func newGrant(most int) grant { return grant{rows: most} }

// observe takes in an attempt: whether it succeeded and the breaker was open before
// it and after it. most is what a lane may have.
func (g *grant) observe(ok, wasOpen, open bool, most int) {
	switch {
	case !wasOpen && !open:
		if g.tried++; ok {
			g.succeeded++
		}
		if g.tried > g.rows {
			g.rows = 2 * g.rows
		}
	case !wasOpen && g.succeeded == 0: // it never worked
		g.rows = 0
	case !wasOpen:
		g.rows = min(g.rows, (g.rows+2*g.succeeded)/2)
	case !open:
		g.tried, g.succeeded, g.misses = 1, 1, 0
	default: // a dead one keeps little soon
		if g.rows /= 2; g.misses > 0 {
			g.rows /= 2
		}
		g.misses++
	}
	g.rows = min(max(g.rows, failingQueue), most)
}

// failingRows is what the lane may have in memory while it fails: little if it is to
// wait for long, or memory is scarce. now is a time of the engine's life.
func (l *lane) failingRows(now time.Duration) int {
	c := &l.e.cfg
	if l.pace.holdUntil-now > shortHold || l.e.held.taken > c.QueueBytes/2 {
		return min(failingQueue, c.QueuePerLane)
	}
	return l.grant.rows
}
