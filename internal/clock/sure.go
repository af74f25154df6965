package clock

import "time"

// Sure tells for how long the service has run by a clock that did not jump. It is not
// safe for concurrent use.
type Sure struct {
	c        *Clock
	since    time.Duration
	turns    int
	believed int
}

// Sure begins to count.
func (c *Clock) Sure() *Sure {
	s := c.State()
	return &Sure{c: c, since: c.o.Read().Monotonic, turns: s.Turns, believed: s.Believed}
}

// For returns the time since the beginning, or since the clock was last doubted: by
// itself, or by the caller.
func (s *Sure) For(doubted bool) time.Duration {
	state, now := s.c.State(), s.c.o.Read().Monotonic
	if doubted || state.Jump != 0 || state.Turns != s.turns {
		s.since, s.turns = now, state.Turns
	}
	return now - s.since
}

// Believed reports whether a jump was believed since it was asked last.
func (s *Sure) Believed() bool {
	was := s.believed
	s.believed = s.c.State().Believed
	return was != s.believed
}
