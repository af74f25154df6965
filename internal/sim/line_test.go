package sim

import (
	"cmp"
	"slices"
	"time"

	"github.com/posthorn/posthorn"
)

// certain reports whether all settings that may have held at a time satisfy is.
func (l *life) certain(at time.Time, is func(posthorn.Settings) bool) bool {
	for i, s := range l.settings {
		over := i+1 < len(l.settings) && !l.settings[i+1].by.IsZero() && l.settings[i+1].by.Before(at)
		if !over && !s.from.After(at) && !is(s.Settings) {
			return false
		}
	}
	return true
}

func isOrdered(s posthorn.Settings) bool { return s.Ordered }

// arrival is a visit with the delivery that it was made for.
type arrival struct {
	*visit
	fact *fact
	id   posthorn.ID
}

// lines holds what came to each endpoint against what its settings promise: the
// order of its line, and its rate.
func (c *checker) lines() {
	came := map[int64][]arrival{}
	for _, f := range c.events {
		for id, endpoint := range f.targets {
			for _, v := range c.visits[id] {
				came[endpoint] = append(came[endpoint], arrival{v, f, id})
			}
		}
	}
	for endpoint, list := range came {
		slices.SortFunc(list, func(a, b arrival) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.id, b.id)) })
		l := c.lives[endpoint]
		c.line(l, list)
		c.rate(l, list)
	}
}

// line checks that whatever came while the endpoint was ordered came when all that
// was published before it had its last attempt behind it.
func (c *checker) line(l *life, list []arrival) {
	// What was stored though its publisher was told of an error is nobody's until
	// the next start: nothing was promised of it.
	inLine := slices.DeleteFunc(slices.Clone(list), func(a arrival) bool { return a.fact.delayed || a.fact.denied })
	for i, a := range inLine {
		if !l.certain(a.at, isOrdered) {
			continue
		}
		count("checked: an arrival in line")
		for j, b := range inLine {
			if b.id >= a.id {
				continue
			}
			if j > i {
				c.say(kindLine, "endpoint %d: %s came %s before %s, which stood before it in line", l.id, a.fact.ref, b.at.Sub(a.at), b.fact.ref)
			}
			// What a dying process held open ended later than the process.
			if j < i && (b.ended.IsZero() || b.ended.After(a.at)) && !c.brokenOff(b.at, a.at) {
				c.say(kindLine, "endpoint %d: %s came while %s, which stood before it in line, was under way", l.id, a.fact.ref, b.fact.ref)
			}
		}
	}
}

// rate checks the time between arrivals. A process does not know of what the one
// before it did not record.
func (c *checker) rate(l *life, list []arrival) {
	for i := range list[:max(len(list)-1, 0)] {
		a, b := list[i], list[i+1]
		between := b.at.Sub(a.at)
		slow := func(s posthorn.Settings) bool {
			return s.RatePerSecond > 0 && between < time.Duration(float64(time.Second)/s.RatePerSecond)-slack
		}
		if l.certain(a.at, slow) && l.certain(b.at, slow) && !l.changedBetween(a.at, b.at) && !c.endedBetween(a.at, b.at) {
			c.say(kindRate, "endpoint %d: %s came %s after %s", l.id, b.fact.ref, between, a.fact.ref)
		}
		if l.certain(a.at, func(s posthorn.Settings) bool { return s.RatePerSecond > 0 }) {
			count("checked: an arrival at a rate")
		}
	}
}

// slack is what rates above twenty a second may be early by.
const slack = 5 * time.Millisecond

func (l *life) changedBetween(from, to time.Time) bool {
	return slices.ContainsFunc(l.settings, func(s setting) bool { return s.from.After(from) && s.from.Before(to) })
}

func (c *checker) endedBetween(from, to time.Time) bool {
	return slices.ContainsFunc(c.ends, func(e end) bool { return !e.at.Before(from) && !e.at.After(to) })
}
