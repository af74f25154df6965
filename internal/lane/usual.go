package lane

import "time"

// An attempt that lasts longer than twice its lane's usual time counts as unproven
// while it lasts. Nobody needs to know before attempts are scarce, so that no timer
// runs for it: those under way are looked through then.

const (
	// minOverdue is what every attempt may last: fast lanes have their moods.
	minOverdue = time.Second
	// lookOverdue spaces out looking through all that is in flight.
	lookOverdue = 10 * time.Millisecond
	// usualWeight is how many successes the usual time goes back.
	usualWeight = 8
)

// took takes in how long a success took.
func (p *pace) took(d time.Duration) {
	if p.usual == 0 {
		p.usual = d
	}
	p.usual += (d - p.usual) / usualWeight
}

// overdueAfter is how long an attempt may last and count as proven.
func (p *pace) overdueAfter() time.Duration { return max(2*p.usual, minOverdue) }

// tick is the engine's age, and remembers it. It is called with the lock held.
func (e *Engine) tick() time.Duration {
	e.seen = e.elapsed()
	return e.seen
}

// markOverdue has attempts count as unproven that last too long.
func (e *Engine) markOverdue(now time.Duration) {
	e.looked = now
	for it := e.flights.oldest; it != nil && now-it.started > minOverdue; {
		later := it.later
		if now-it.started > it.lane.pace.overdueAfter() {
			e.flights.remove(it)
			it.proven = false
			e.unproven++
		}
		it = later
	}
}

// flights are the attempts in flight that count as proven, the oldest first.
type flights struct{ oldest, newest *item }

func (f *flights) add(it *item) {
	if it.earlier, it.later = f.newest, nil; f.newest == nil {
		f.oldest = it
	} else {
		f.newest.later = it
	}
	f.newest = it
}

func (f *flights) remove(it *item) {
	if it.earlier == nil {
		f.oldest = it.later
	} else {
		it.earlier.later = it.later
	}
	if it.later == nil {
		f.newest = it.earlier
	} else {
		it.later.earlier = it.earlier
	}
	it.earlier, it.later = nil, nil
}
