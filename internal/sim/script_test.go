package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
)

// script is a world as data: all that is decided before it runs. A seed makes
// one; dropping steps of it leaves another script that can be run.
type script struct {
	Seed   uint64
	Calm   bool // nothing fails, nothing crashes: order is to be kept
	Engine lane.Config
	// Backlog is the backlog limit of a tenant.
	Backlog   int
	Endpoints []role
	// Asleep is the endpoint that stays paused at the end, or -1.
	Asleep int
	Steps  []step
}

const (
	tenantsPerWorld   = 3
	endpointsPerWorld = 10
	eventsPerWorld    = 200
)

// role is an endpoint to begin with.
type role struct {
	Tenant   int
	Patterns []posthorn.Pattern
	Settings posthorn.Settings
	Mood     mood
	Seed     uint64
}

// step is one operation. Which of its fields mean something depends on Do.
type step struct {
	Place int // in the script that the seed makes
	Do    deed
	Who   int // a tenant or an endpoint
	N     int
	For   time.Duration
	Mood  mood
	Point point
	Call  call
	Late  bool
	Seed  uint64
}

type deed string

const (
	doPublish   deed = "publish"
	doBatch     deed = "publish a batch"
	doKeyed     deed = "publish with an id that may be known"
	doConflict  deed = "publish other content with a known id"
	doDelayed   deed = "publish for later"
	doRace      deed = "publish while the endpoint changes"
	doWait      deed = "wait"
	doPause     deed = "pause"
	doResume    deed = "resume"
	doURL       deed = "change the url"
	doPatterns  deed = "change the patterns"
	doSettings  deed = "change the settings"
	doRotate    deed = "rotate the secret"
	doDelete    deed = "delete"
	doCreate    deed = "create"
	doSuspend   deed = "suspend the tenant"
	doUnsuspend deed = "resume the tenant"
	doOff       deed = "sending off"
	doOn        deed = "sending on"
	doMood      deed = "change the receiver"
	doClock     deed = "step the clock"
	doFault     deed = "let the store fail"
	doFull      deed = "fill the disk"
	doRoom      deed = "make room on the disk"
	doCrash     deed = "crash"
	doCrashAt   deed = "crash at a point"
	doDrain     deed = "drain and restart"
	doSweep     deed = "sweep"
)

// deeds are all of them, and how often each is done.
var deeds = []struct {
	do    deed
	often int
	rough bool // never in a calm world
}{
	{doPublish, 26, false}, {doBatch, 6, false}, {doKeyed, 6, false}, {doConflict, 2, false},
	{doDelayed, 3, false}, {doRace, 4, false}, {doWait, 18, false}, {doPause, 4, false},
	{doResume, 6, false}, {doURL, 3, false}, {doPatterns, 2, false}, {doSettings, 3, false},
	{doDelete, 1, false}, {doCreate, 1, false}, {doSuspend, 2, false}, {doUnsuspend, 8, false},
	{doOff, 2, false}, {doOn, 6, false}, {doMood, 8, false}, {doClock, 3, false},
	{doRotate, 3, false},
	{doFault, 6, true}, {doFull, 1, true}, {doRoom, 4, true}, {doCrash, 2, true},
	{doCrashAt, 4, true}, {doDrain, 3, false}, {doSweep, 2, false},
}

// chance decides everything that is random in a script.
type chance struct{ *rand.Rand }

func chanceOf(seed, stream uint64) chance           { return chance{rand.New(rand.NewPCG(seed, stream))} }
func (c chance) one(in int) bool                    { return c.IntN(in) == 0 }
func (c chance) upTo(d time.Duration) time.Duration { return time.Duration(c.Int64N(int64(d))) }

func pick[T any](c chance, from ...T) T { return from[c.IntN(len(from))] }

// newScript is the world of a seed.
func newScript(seed uint64) script {
	c := chanceOf(seed, 0)
	s := script{Seed: seed, Calm: c.one(4), Asleep: -1}
	s.Engine = lane.Config{
		MaxInFlight: 4 + c.IntN(40), MaxUnrecorded: 1 + c.IntN(20), QueuePerLane: 1 + c.IntN(30),
		QueueBytes: int64(pick(c, 4<<10, 64<<10, 64<<20)),
	}
	s.Engine.QueueBurst = s.Engine.QueuePerLane * (1 + int(seed%3))
	if c.one(4) {
		s.Backlog = 20 + c.IntN(100)
	}
	if c.one(2) {
		s.Asleep = c.IntN(endpointsPerWorld)
	}
	for i := range endpointsPerWorld {
		s.Endpoints = append(s.Endpoints, role{
			Tenant: i % tenantsPerWorld, Patterns: c.patterns(), Settings: c.settings(s.Calm), Mood: c.mood(s.Calm), Seed: c.Uint64(),
		})
	}
	total := 0
	for _, d := range deeds {
		total += d.often
	}
	for events := 0; events < eventsPerWorld; {
		n := c.IntN(total)
		i := slices.IndexFunc(deeds, func(d struct {
			do    deed
			often int
			rough bool
		}) bool {
			n -= d.often
			return n < 0
		})
		if s.Calm && deeds[i].rough {
			continue
		}
		st := c.step(deeds[i].do, s.Calm)
		st.Place = len(s.Steps)
		events += st.events()
		s.Steps = append(s.Steps, st)
	}
	return s
}

// events is how many events a step publishes when nothing is in its way.
func (s step) events() int {
	switch s.Do {
	case doPublish, doBatch, doDelayed, doRace, doCrashAt:
		return s.N
	}
	return 0
}

func (c chance) step(do deed, calm bool) step {
	s := step{Do: do, Who: c.IntN(endpointsPerWorld), Seed: c.Uint64()}
	switch do {
	case doPublish:
		s.N = 1 + c.IntN(6)
	case doBatch, doRace:
		s.N = 3 + c.IntN(8)
	case doDelayed:
		s.N, s.For = 1, c.upTo(3*hour)
	case doKeyed, doConflict:
		s.N = c.IntN(12)
	case doWait:
		s.For = pick(c, c.upTo(second), c.upTo(30*second), c.upTo(10*minute), c.upTo(3*hour))
	case doMood:
		s.Mood = c.mood(calm)
	case doClock:
		s.For = pick(c, c.upTo(minute), c.upTo(hour), c.upTo(6*hour), c.upTo(3*day)) * time.Duration(pick(c, 1, -1))
	case doFault:
		s.Call, s.N = pick(c, faultable...), 1+c.IntN(8)
		switch s.Call {
		case callPublish, callRecord, callPark:
			s.Late = c.one(3)
		}
	case doCrashAt:
		s.Point, s.N, s.For = pick(c, points...), 3+c.IntN(6), c.upTo(hour)
	case doDrain:
		s.For = c.upTo(hour)
	case doRotate:
		s.For = pick(c, 0, c.upTo(minute), c.upTo(6*hour))
	}
	return s
}

var faultable = []call{callPublish, callRecord, callClaimDue, callClaimParked, callPark, callPayload, callTarget, callSending}

func (c chance) patterns() []posthorn.Pattern {
	return pick(c,
		[]posthorn.Pattern{"*"}, []posthorn.Pattern{"cases.*"}, []posthorn.Pattern{"cases.updated", "orders.*"},
		[]posthorn.Pattern{"cases.created"}, []posthorn.Pattern{"orders.*", "cases.*"})
}

func (c chance) eventType() string {
	return pick(c, "cases.updated", "cases.created", "orders.placed", "orders.items.added")
}

// settings of a calm world let one attempt be made at a time: see order.
func (c chance) settings(calm bool) (s posthorn.Settings) {
	switch {
	case calm:
		s.MaxInFlight = 1
	case c.one(2):
		s.MaxInFlight = 1 + c.IntN(4)
	}
	if c.one(3) {
		s.Ordered = true
	}
	if c.one(5) {
		s.RatePerSecond = pick(c, 0.5, 2, 20, 200)
	}
	if c.one(3) {
		s.RetrySchedule = pick(c, []int{5, 30, 600}, []int{5}, []int{60, 60, 60, 3600})
	}
	if c.one(4) {
		s.TimeoutSeconds = 5 + c.IntN(26)
	}
	return s
}

// String writes the script so that it can be read, a step a line.
func (s script) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, calm %t, %d in flight, %d unrecorded, %d to %d a lane, %d bytes, backlog %d, asleep %d\n",
		s.Seed, s.Calm, s.Engine.MaxInFlight, s.Engine.MaxUnrecorded, s.Engine.QueuePerLane, s.Engine.QueueBurst, s.Engine.QueueBytes, s.Backlog, s.Asleep)
	for i, r := range s.Endpoints {
		fmt.Fprintf(&b, "  endpoint %d of tenant %d for %s, %s %+v\n", i, r.Tenant, r.Patterns, r.Mood, r.Settings)
	}
	for _, st := range s.Steps {
		fmt.Fprintf(&b, "  %3d %s\n", st.Place, st)
	}
	return b.String()
}

func (s step) String() string {
	t := fmt.Sprintf("%s (%d, n %d", s.Do, s.Who, s.N)
	for _, part := range []string{string(s.Mood), string(s.Point), string(s.Call)} {
		if part != "" {
			t += ", " + part
		}
	}
	if s.For != 0 {
		t += ", " + s.For.String()
	}
	if s.Late {
		t += ", after the commit"
	}
	return t + ")"
}
