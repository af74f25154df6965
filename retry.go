package posthorn

import (
	"errors"
	"time"
)

// DefaultSchedule holds the waits between failed attempts: 5 s, 5 min, 30 min,
// 2 h, 5 h, 10 h, 14 h, 20 h, 24 h. With no time spent on the attempts the last
// of the ten is made 75 h 35 min 5 s, about three days, after the first
// (Standard Webhooks 1.0 recommends these figures).
func DefaultSchedule() []time.Duration {
	return []time.Duration{
		5 * time.Second, 5 * time.Minute, 30 * time.Minute,
		2 * time.Hour, 5 * time.Hour, 10 * time.Hour,
		14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

const (
	// DefaultJitter spreads each wait over ±20 %, so that receivers that failed
	// together are not asked together again.
	DefaultJitter = 0.2
	// DefaultLocalRetry is how soon an attempt spoiled by our own side is made
	// again.
	DefaultLocalRetry = 5 * time.Second
	// MaxRetryAfter is the longest wait that a receiver may ask for.
	MaxRetryAfter = 24 * time.Hour
)

// Policy decides what follows a failed attempt.
type Policy struct {
	Schedule   []time.Duration // waits after the first, second… failure
	Jitter     float64         // share of each wait, 0 to 1; 0 makes times exact
	LocalRetry time.Duration
}

// DefaultPolicy is the documented schedule with its jitter.
func DefaultPolicy() Policy {
	return Policy{Schedule: DefaultSchedule(), Jitter: DefaultJitter, LocalRetry: DefaultLocalRetry}
}

// For returns the policy with an endpoint's own schedule, if it has one.
func (p Policy) For(s Settings) Policy {
	if len(s.RetrySchedule) > 0 {
		p.Schedule = make([]time.Duration, len(s.RetrySchedule))
		for i, sec := range s.RetrySchedule {
			p.Schedule[i] = time.Duration(sec) * time.Second
		}
	}
	return p
}

// Once returns the policy of a delivery that is attempted once: the test of an
// endpoint, see [IsTestRef]. What our own side spoils is attempted again.
func (p Policy) Once() Policy {
	p.Schedule = nil
	return p
}

// Move is what happens to a delivery.
type Move uint8

const (
	Attempted Move = iota // an attempt ended; Input.Outcome says how
	Cancel                // a user, or the deletion of the endpoint
	Expire                // the event's retention ended, or the backlog was full
	Retry                 // one extra attempt now, asked for by hand
	Restart               // the whole schedule anew, for a replay
	moveEnd
)

// Input is one move with what Step needs to know of it.
type Input struct {
	Move Move
	// Outcome and RetryAfter come from the attempt; see [Attempt].
	Outcome    Class
	RetryAfter time.Duration
	Now        time.Time
	// Random is in [-1, 1) and places a wait within its jitter.
	Random float64
}

// ErrFinal is returned for a move that a finished delivery does not allow.
var ErrFinal = errors.New("the delivery is already in a final state")

// Step is the state machine of a delivery: the only code that decides what
// happens to it next. It returns where the delivery stands after the move. For
// a move that is not allowed it returns p unchanged and [ErrFinal].
//
//   - An attempt that succeeded makes any delivery succeeded, even one that was
//     canceled while the request was under way: the receiver has it.
//   - A failed attempt waits for the schedule's next wait, or as long as the
//     receiver asked if that is longer; with no wait left the delivery is failed.
//   - A local fault takes no wait from the schedule.
//   - A failed extra attempt puts the old final state back, and so does what ends it
//     before it is made.
func (pol Policy) Step(p Progress, in Input) (Progress, error) {
	switch in.Move {
	case Attempted:
		return pol.afterAttempt(p, in), nil
	case Cancel, Expire:
		if p.State.Final() {
			return p, ErrFinal
		}
		switch {
		case p.Extra:
			p.State = p.Before
		case in.Move == Expire:
			p.State = Expired
		default:
			p.State = Canceled
		}
		return closed(p), nil
	case Retry:
		if p.State.Final() {
			p.Extra, p.Before, p.State = true, p.State, Pending
		}
		p.NextAt, p.Manual = in.Now, true
		return p, nil
	case Restart:
		if !p.State.Final() {
			return p, errors.New("the delivery is still pending")
		}
		p = closed(p)
		p.State, p.Waits, p.NextAt = Pending, 0, in.Now
		p.Round++
		return p, nil
	}
	panic("posthorn: unknown move")
}

func (pol Policy) afterAttempt(p Progress, in Input) Progress {
	p.Tries++
	if in.Outcome == ClassLocal {
		if p.State == Pending {
			p.NextAt = in.Now.Add(pol.LocalRetry)
		}
		return p
	}
	p.Attempts++
	p.Manual = false
	switch {
	case in.Outcome == ClassOK:
		p.State = Succeeded
		return closed(p)
	case p.State.Final(): // canceled or expired while the request was under way
		return p
	case p.Extra:
		p.State = p.Before
		return closed(p)
	case p.Waits >= len(pol.Schedule):
		p.State = Failed
		return closed(p)
	}
	wait := pol.wait(p.Waits, in.Random)
	p.Waits++
	p.NextAt = in.Now.Add(max(wait, min(in.RetryAfter, MaxRetryAfter)))
	return p
}

// wait is the schedule's i-th wait, moved within its jitter.
func (pol Policy) wait(i int, random float64) time.Duration {
	w := pol.Schedule[i]
	return w + time.Duration(float64(w)*pol.Jitter*random)
}

// Longest is the longest wait that the schedule can have given a delivery after its
// last attempt; what a receiver asked for is its endpoint's, see [Health.HoldUntil].
func (pol Policy) Longest(p Progress) time.Duration {
	if p.Waits == 0 || len(pol.Schedule) == 0 {
		return pol.LocalRetry
	}
	return max(pol.wait(min(p.Waits, len(pol.Schedule))-1, 1), pol.LocalRetry)
}

func closed(p Progress) Progress {
	p.NextAt, p.Extra, p.Before, p.Manual = time.Time{}, false, Pending, false
	return p
}
