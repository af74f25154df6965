package store

import "time"

// ParkedRow is a parked delivery that a claim meets.
type ParkedRow struct {
	Aside  bool // as in [Work]
	Tries  int
	NextAt time.Time
}

// Blocks returns which of the first parked deliveries of an ordered lane holds the
// others, or -1.
func Blocks(parked []ParkedRow) int {
	for i, c := range parked {
		if !c.Aside {
			if c.Tries > 0 {
				return i
			}
			return -1
		}
	}
	return -1
}

// LookAside is how many parked deliveries of an ordered lane a claim looks at,
// at least, for those that the line does not hold.
const LookAside = 64

// LineUp decides what a claim does with the first parked deliveries of a lane, in
// their order: which are taken, at most limit, and which wait for their time
// instead. An ordered lane's line ends before the first one whose time has not
// come. next is the earliest such time, zero for none; more tells that others are
// left, as full says of those that are not among the candidates.
func LineUp(ordered bool, parked []ParkedRow, full bool, now time.Time, limit int) (take, wait []int, more bool, next time.Time) {
	held := false
	for i, c := range parked {
		inLine := ordered && !c.Aside
		// One that was never tried is due, whatever the clocks say.
		early := c.Tries > 0 && c.NextAt.After(now)
		switch {
		case inLine && held, len(take) == limit:
			continue
		case early && inLine:
			held = true
		case early:
			wait = append(wait, i)
		default:
			take = append(take, i)
			continue
		}
		if next.IsZero() || c.NextAt.Before(next) {
			next = c.NextAt
		}
	}
	if full && len(take) == 0 && len(wait) > 0 {
		next = now // what comes behind these is not known yet
	}
	return take, wait, full || len(take)+len(wait) < len(parked), next
}
