package sim

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
)

// history is what happened in a world: what was promised, what the receivers
// saw, and what disturbed it. The checker (complaints) reads nothing else, so
// that its own tests can forge one.
type history struct {
	mu    sync.Mutex
	clock int64 // orders what happens within an instant

	events []*fact // in the order of their commits
	byRef  map[refOf]*fact
	lives  map[int64]*life
	quiets map[string][]span
	ends   []end
	skews  []skew
	visits []*visit
	// final is where deliveries stood in the end.
	final map[posthorn.ID]posthorn.Delivery
	// settled: all was well for long enough that everything must have ended.
	settled bool
	// calm: nothing failed and nothing crashed, so that order holds.
	calm    bool
	samples []sample
	// found is what the world itself saw go wrong.
	found []complaint
}

type refOf struct {
	tenant int64
	ref    string
}

// fact is an event that the store committed.
type fact struct {
	id        posthorn.ID
	ref, key  string
	kind      string // its type
	tenant    int64
	at        time.Time // when it was committed
	due       time.Time // the earliest time of the first attempt, by the wall clock
	delayed   bool
	body      string
	open      int                   // how many deliveries were stored open
	targets   map[posthorn.ID]int64 // the endpoint of each delivery
	denied    bool                  // the publisher was told of an error
	promised  bool                  // somebody was answered 202
	began     int64                 // when its publish began and was answered, by history.clock
	answered  int64
	succeeded bool // by a denied publish: the service claimed success
}

// life is what an endpoint was, and when. The times born and deleted are of
// history.clock: a change holds from some moment between from and by.
type life struct {
	id, tenant int64
	secrets    []signing // in the order of their rotations
	born, died between
	hosts      []hosted
	settings   []setting
	patterns   []pattern
	deletedAt  time.Time
}

type between struct{ from, by int64 }

// signing is a secret, which a rotation brought and a later one ends.
type signing struct {
	secret   string
	from, by time.Time // when its rotation began, and was answered
	// succeeded is when a rotation with an overlap began, ends when this one then
	// expires, by the wall clock; zero while it is the last.
	succeeded, ends time.Time
	// dropped is when a rotation without an overlap began to end it, goneBy when
	// that was answered.
	dropped, goneBy time.Time
}

type hosted struct {
	host     string
	from, to time.Time
}

type setting struct {
	from time.Time
	by   time.Time // when the change was answered; zero if it was not
	posthorn.Settings
}

type pattern struct {
	since  between
	events []posthorn.Pattern
}

// span is a time in which nothing may be sent; to is zero while it lasts.
type span struct{ from, to time.Time }

// end is when a process ended. After a rough one attempts may be repeated.
type end struct {
	at    time.Time
	rough bool
}

// skew is a step of the service's time.
type skew struct {
	at            time.Time
	before, after time.Duration
}

// stepped notes a step of the service's time.
func (h *history) stepped(before, after time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.skews = append(h.skews, skew{time.Now(), before, after})
}

// back reports whether the service's time was put back between two times.
func (h *history) back(from, to time.Time) bool {
	return slices.ContainsFunc(h.skews, func(s skew) bool { return s.after < s.before && !s.at.Before(from) && !s.at.After(to) })
}

// sample is what the engine held at a moment, and what it may hold.
type sample struct {
	got, bound lane.Stats
}

func newHistory() *history {
	return &history{
		byRef: map[refOf]*fact{}, lives: map[int64]*life{}, quiets: map[string][]span{},
		final: map[posthorn.ID]posthorn.Delivery{},
	}
}

// tick is the next moment.
func (h *history) tick() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	return h.clock
}

func (h *history) add(f *fact) {
	h.events = append(h.events, f)
	h.byRef[refOf{f.tenant, f.ref}] = f
}

func (h *history) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.events)
}

// promise notes that a publish that began at a moment was answered 202 for an
// event. repeated tells that it was known before.
func (h *history) promise(tenant int64, ref string, began int64, repeated bool, deliveries int) *fact {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	f := h.byRef[refOf{tenant, ref}]
	switch {
	case f == nil:
		h.note(kindLost, "%s was answered 202 and never stored", ref)
		return nil
	case deliveries != len(f.targets):
		h.note(kindMatch, "%s was answered with %d deliveries and has %d", ref, deliveries, len(f.targets))
	case !repeated && f.denied:
		f.succeeded = true
	}
	if f.promised = true; !repeated {
		f.began, f.answered = began, h.clock
	}
	return f
}

// note adds what was seen to go wrong. It is called with mu held.
func (h *history) note(kind, format string, args ...any) {
	h.found = append(h.found, complaint{kind, fmt.Sprintf(format, args...)})
}

func (h *history) wrong(kind, format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.note(kind, format, args...)
}

func ofEndpoint(id int64) string { return fmt.Sprint("endpoint ", id) }
func ofTenant(id int64) string   { return fmt.Sprint("tenant ", id) }

const everybody = "everybody"

// quiet notes that from now on nothing may begin for whom.
func (h *history) quiet(whom string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.quiets[whom]; len(s) > 0 && s[len(s)-1].to.IsZero() {
		return
	}
	h.quiets[whom] = append(h.quiets[whom], span{from: time.Now()})
}

// loud notes that attempts may begin again.
func (h *history) loud(whom string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s := h.quiets[whom]; len(s) > 0 && s[len(s)-1].to.IsZero() {
		s[len(s)-1].to = time.Now()
	}
}

// created notes a new endpoint whose creation began at a moment.
func (h *history) created(from int64, e posthorn.Endpoint, host, secret string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	born := between{from, h.clock}
	h.lives[e.ID] = &life{
		id: e.ID, tenant: e.Tenant, born: born,
		secrets:  []signing{{secret: secret, from: time.Now(), by: time.Now()}},
		hosts:    []hosted{{host: host, from: time.Now()}},
		settings: []setting{{time.Now(), time.Now(), e.Settings}},
		patterns: []pattern{{born, e.Events}},
	}
}

// changing notes that an endpoint is about to become e; changed, that it has.
func (h *history) changing(e posthorn.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	l := h.lives[e.ID]
	if host := hostOf(e.URL); host != l.host() {
		l.hosts = append(l.hosts, hosted{host: host, from: time.Now()})
	}
	l.settings = append(l.settings, setting{from: time.Now(), Settings: e.Settings})
	l.patterns = append(l.patterns, pattern{between{from: h.clock}, e.Events})
}

func (h *history) changed(e posthorn.Endpoint) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	l := h.lives[e.ID]
	l.patterns[len(l.patterns)-1].since.by = h.clock
	l.settings[len(l.settings)-1].by = time.Now()
	for i := range l.hosts[:len(l.hosts)-1] {
		if l.hosts[i].to.IsZero() {
			l.hosts[i].to = time.Now()
		}
	}
}

// rotating notes that a secret is about to come, before which the others end by
// the wall clock, or at once when there is no overlap; rotated, that it has.
func (h *history) rotating(id int64, secret string, ends time.Time, overlap bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[id]
	if n := len(l.secrets); overlap {
		l.secrets[n-1].succeeded, l.secrets[n-1].ends = time.Now(), ends
	} else {
		for i := range l.secrets {
			if l.secrets[i].dropped.IsZero() {
				l.secrets[i].dropped = time.Now()
			}
		}
	}
	l.secrets = append(l.secrets, signing{secret: secret, from: time.Now()})
}

func (h *history) rotated(id int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.lives[id]
	l.secrets[len(l.secrets)-1].by = time.Now()
	for i := range l.secrets {
		if s := &l.secrets[i]; !s.dropped.IsZero() && s.goneBy.IsZero() {
			s.goneBy = time.Now()
		}
	}
}

func (l *life) host() string { return l.hosts[len(l.hosts)-1].host }

// deleted notes that an endpoint was deleted by a change that began at a moment.
func (h *history) deleted(from, id int64) {
	h.quiet(ofEndpoint(id))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.lives[id].died, h.lives[id].deletedAt = between{from, h.clock}, time.Now()
}

// matched reports whether the endpoint must have matched a publish of the type
// between two moments, and whether it may have.
func (l *life) matched(kind string, began, answered int64) (must, may bool) {
	if l.born.from > answered || l.died.by > 0 && l.died.by < began {
		return false, false
	}
	must = l.born.by < began && (l.died.from == 0 || l.died.from > answered)
	for i, p := range l.patterns {
		over := i+1 < len(l.patterns) && l.patterns[i+1].since.by > 0 && l.patterns[i+1].since.by < began
		if over || p.since.from > answered {
			continue
		}
		e := posthorn.Endpoint{Events: p.events}
		m := e.Matches(kind)
		must, may = must && m, may || m
	}
	return must, may
}

// wait is the shortest i-th wait of the schedules that held between two times;
// false when none was that long. What is read back, because a clock was put back, waits
// by the schedule of that time: by its last wait where it has been made shorter.
func (l *life) wait(i int, from, to time.Time, readBack bool) (wait time.Duration, ok bool) {
	var waits []time.Duration
	for j, s := range l.settings {
		if s.from.After(to) || j+1 < len(l.settings) && l.settings[j+1].from.Before(from) {
			continue
		}
		schedule := posthorn.DefaultPolicy().For(s.Settings).Schedule
		switch n := len(schedule); {
		case i < n:
			waits, ok = append(waits, schedule[i]), true
		case readBack && n > 0:
			waits = append(waits, schedule[n-1])
		case readBack:
			waits = append(waits, 0)
		}
	}
	if !ok {
		return 0, false
	}
	return slices.Min(waits), true
}

// wall is the lowest and the highest that the service's time was between two
// times.
func (h *history) wall(from, to time.Time) (low, high time.Time) {
	var now time.Duration
	see := func(t time.Time) {
		if low.IsZero() || t.Before(low) {
			low = t
		}
		if t.After(high) {
			high = t
		}
	}
	for _, s := range h.skews {
		if s.at.After(to) {
			break
		}
		if s.at.Before(from) {
			now = s.after
			continue
		}
		if low.IsZero() {
			see(from.Add(s.before))
		}
		see(s.at.Add(s.before))
		see(s.at.Add(s.after))
		now = s.after
	}
	if low.IsZero() {
		see(from.Add(now))
	}
	see(to.Add(now))
	return low, high
}

// forward is how far the service's time was put forward between two times.
func (h *history) forward(from, to time.Time) (d time.Duration) {
	for _, s := range h.skews {
		switch {
		case s.at.Equal(from), s.at.Equal(to):
			// A claim may bring a reading from before a step back to a row that was
			// written after it, in the same instant.
			d += (s.after - s.before).Abs()
		case s.at.After(from) && s.at.Before(to):
			d += max(s.after-s.before, 0)
		}
	}
	return d
}

// brokenOff reports whether a process ended roughly between two times.
func (h *history) brokenOff(from, to time.Time) bool {
	_, ok := h.broken(from, to)
	return ok
}

// broken is when a process first ended roughly between two times.
func (h *history) broken(from, to time.Time) (at time.Time, ok bool) {
	for _, e := range h.ends {
		if e.rough && !e.at.Before(from) && !e.at.After(to) {
			return e.at, true
		}
	}
	return time.Time{}, false
}

// ended notes the end of a process.
func (h *history) ended(rough bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ends = append(h.ends, end{time.Now(), rough})
}

func (h *history) tenantOf(delivery posthorn.ID) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, f := range h.events {
		if _, ok := f.targets[delivery]; ok {
			return f.tenant
		}
	}
	return 0
}
