// Package clock is the service's one clock. Waits and retention go by it. It goes
// on with the monotonic clock from what a reference said: the machine's own wall
// clock, or a database's. A reference that jumps is not followed at once: a wrong
// clock would send early, expire what is open and delete what is kept. See
// DESIGN.md beside this file.
package clock

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// WallSlack is how far the machine's clock may jump and be followed at once,
	// DatabaseSlack how far a database's may.
	WallSlack     = time.Minute
	DatabaseSlack = time.Second
	// Believed is how long a jump must stand before it is followed. Nothing is judged
	// by its age meanwhile, nor for so long after any jump.
	Believed = time.Hour
)

// Reading is what the machine's own clocks show at one moment. Monotonic counts from
// any fixed time and goes on while the machine sleeps, where the system tells it.
type Reading struct {
	Wall      time.Time
	Monotonic time.Duration
}

// Options says what a clock goes by.
type Options struct {
	// Read reads the machine's clocks; nil is the machine's. It is called concurrently.
	Read func() Reading
	// Slack is how far the reference may jump and be followed at once; 0 is WallSlack.
	Slack time.Duration
	// Driven: the reference is told by Follow; until then, and otherwise, it is the
	// machine's wall clock.
	Driven bool
	Log    *slog.Logger
}

// Clock is the service's clock. Its methods may be called concurrently.
type Clock struct {
	o Options
	// offset is the service's time less the monotonic one, in Unix nanoseconds.
	offset atomic.Int64
	// settled is the wall clock less the monotonic one when somebody last looked at
	// it: while that is so, Now need not ask what became of the wall clock.
	settled atomic.Int64
	// doubted is the reference's offset that is not believed; 0 for none.
	doubted atomic.Int64

	mu       sync.Mutex    // held by who moves the offset or the doubt
	since    time.Duration // when it began
	turns    int
	believed int
}

// New returns a clock that shows the machine's time.
func New(o Options) *Clock {
	if o.Read == nil {
		o.Read = machine
	}
	if o.Slack == 0 {
		o.Slack = WallSlack
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c := &Clock{o: o}
	r := o.Read()
	c.offset.Store(r.offset())
	c.settled.Store(r.offset())
	return c
}

// Offset is the wall clock's Unix time less the monotonic one.
func (r Reading) Offset() time.Duration { return time.Duration(r.offset()) }

func (r Reading) offset() int64 { return r.Wall.UnixNano() - int64(r.Monotonic) }

// glance is how far the wall clock may move before Now looks at it.
const glance = 100 * time.Millisecond

// Now is the service's time, in UTC and without a monotonic part.
func (c *Clock) Now() time.Time {
	r := c.o.Read()
	if !c.o.Driven && (abs(r.offset()-c.settled.Load()) > int64(glance) || c.doubted.Load() != 0) {
		c.mu.Lock()
		c.settled.Store(r.offset())
		c.judge(r.Monotonic, r.offset(), 0)
		c.mu.Unlock()
	}
	return c.at(r)
}

func (c *Clock) at(r Reading) time.Time {
	return time.Unix(0, c.offset.Load()+int64(r.Monotonic)).UTC()
}

// Wall is the machine's own time, which signatures show.
func (c *Clock) Wall() time.Time { return c.o.Read().Wall }

// Read reads the machine's clocks.
func (c *Clock) Read() Reading { return c.o.Read() }

// Follow takes in what the reference showed at some moment between two readings.
// The first that a driven clock is told is followed, whatever it says.
func (c *Clock) Follow(reference time.Time, before, after Reading) {
	margin := (after.Monotonic - before.Monotonic) / 2
	middle := before.Monotonic + margin
	c.mu.Lock()
	defer c.mu.Unlock()
	c.judge(middle, reference.UnixNano()-int64(middle), margin)
}

// Set makes a driven clock show a time now, as the nodes do that it joins.
func (c *Clock) Set(to time.Time, at Reading) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.believe(to.UnixNano() - int64(at.Monotonic))
}

// judge follows the reference, whose offset is known within a margin, or not yet.
// It is called with the lock held.
func (c *Clock) judge(now time.Duration, offset int64, margin time.Duration) {
	current := c.offset.Load()
	off := offset - current
	switch {
	case abs(off) <= int64(margin):
		c.trust()
	case abs(off) <= int64(margin+c.o.Slack):
		c.trust()
		c.offset.Store(towards(current, offset, margin))
	case c.doubted.Load() == 0 || abs(offset-c.doubted.Load()) > int64(margin+c.o.Slack):
		c.doubted.Store(offset)
		c.since = now
		c.turns++
		c.o.Log.Warn("the clock has jumped, which is not believed for an hour: nothing is sent early, expires or is deleted by it. If the clock is wrong, set it right; if it was wrong before, wait, or restart the service",
			"jump", time.Duration(off).Round(time.Millisecond))
	case now-c.since >= Believed:
		c.o.Log.Warn("the clock has jumped and stayed where it is for an hour; it is believed from now on", "jump", time.Duration(off).Round(time.Millisecond))
		c.believe(offset)
	}
}

// trust ends a doubt: the reference is where it was before.
func (c *Clock) trust() {
	if c.doubted.Load() == 0 {
		return
	}
	c.doubted.Store(0)
	c.turns++
	c.o.Log.Info("the clock is where it should be again")
}

func (c *Clock) believe(offset int64) {
	c.doubted.Store(0)
	c.turns++
	c.believed++
	c.offset.Store(offset)
}

// towards is the offset moved as little as the margin asks for.
func towards(current, offset int64, margin time.Duration) int64 {
	if current < offset {
		return offset - int64(margin)
	}
	return offset + int64(margin)
}

// State is what is known of the reference.
type State struct {
	// Jump is by how much the reference has jumped without being believed; 0 for not.
	Jump time.Duration
	// Turns counts the times at which a jump began, ended or was believed, Believed
	// those at which one was believed.
	Turns, Believed int
}

// State says what is known of the reference.
func (c *Clock) State() State {
	c.Now() // looks at the wall clock, if that is the reference
	c.mu.Lock()
	defer c.mu.Unlock()
	s := State{Turns: c.turns, Believed: c.believed}
	if doubted := c.doubted.Load(); doubted != 0 {
		s.Jump = time.Duration(doubted - c.offset.Load())
	}
	return s
}

// JumpError: the machine's clock has jumped, which is not believed yet.
type JumpError struct{ Jump time.Duration }

func (e *JumpError) Error() string {
	return fmt.Sprintf("this machine's clock has jumped by %s, which is not believed before it has stood for an hour; if it is wrong, set it right by NTP", e.Jump.Round(time.Second))
}

func abs(n int64) int64 { return max(n, -n) }
