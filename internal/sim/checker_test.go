package sim

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/webhook"
)

// complaint is a promise that was broken.
type complaint struct{ kind, text string }

func (c complaint) String() string { return c.kind + ": " + c.text }

// The kinds of complaints. Each has a forged history that brings it about.
const (
	kindLost      = "lost"             // answered 202 and not in the store
	kindOpen      = "never ended"      // neither delivered nor final
	kindReason    = "without reason"   // final, and the history does not tell why
	kindUnsent    = "never sent"       // counts as delivered, and no receiver acknowledged
	kindMatch     = "wrong endpoints"  // not those that matched
	kindFlight    = "in flight twice"  // two attempts of a delivery at a time
	kindAgain     = "after success"    // an attempt after an acknowledged one
	kindStranger  = "another tenant"   // or another endpoint, or an unknown event
	kindBody      = "other bytes"      // body or id are not those accepted
	kindSignature = "signature"        //
	kindEarly     = "too early"        // before the scheduled wait
	kindNumber    = "attempt number"   // counts wrong, or beyond the schedule
	kindQuiet     = "while quiet"      // paused, suspended, off, deleted
	kindOldURL    = "old url"          // after the change was answered
	kindOrder     = "order"            // while nothing failed
	kindLine      = "line"             // of an ordered endpoint
	kindRate      = "rate"             // more than rate_per_second
	kindMemory    = "memory"           // more than the bounds
	kindTwice     = "stored twice"     // one id, two events
	kindUnknown   = "unknown outcome"  // an error of the store answered as success
	kindAnswer    = "publisher's view" // an answer that the API does not have
)

// complaints holds the history against what was promised.
func (h *history) complaints() []complaint {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checker{history: h, said: slices.Clone(h.found), byHost: map[string]*life{}, visits: map[posthorn.ID][]*visit{}}
	for _, l := range h.lives {
		for _, s := range l.hosts {
			c.byHost[s.host] = l
		}
	}
	for _, v := range h.visits {
		c.visit(v)
	}
	for _, f := range h.events {
		c.event(f)
	}
	if h.calm {
		c.order()
	}
	c.lines()
	for _, s := range h.samples {
		c.sample(s)
	}
	return c.said
}

type checker struct {
	*history
	said   []complaint
	byHost map[string]*life
	visits map[posthorn.ID][]*visit // of each delivery
}

func (c *checker) say(kind, format string, args ...any) {
	c.said = append(c.said, complaint{kind, fmt.Sprintf(format, args...)})
}

// visit checks a request by itself.
func (c *checker) visit(v *visit) {
	ref := v.header.Get("webhook-id")
	id, _ := posthorn.ParseID(posthorn.DeliveryPrefix, v.header.Get("posthorn-delivery"))
	l := c.byHost[v.host]
	if l == nil {
		c.say(kindStranger, "a request to %s, where no endpoint is", v.host)
		return
	}
	f := c.byRef[refOf{l.tenant, ref}]
	if f == nil {
		c.say(kindStranger, "a request with the event %q, which tenant %d never published, to %s", ref, l.tenant, v.host)
		return
	}
	if f.targets[id] != l.id {
		c.say(kindStranger, "%s came to endpoint %d as a delivery of endpoint %d", ref, l.id, f.targets[id])
		return
	}
	c.visits[id] = append(c.visits[id], v)
	if v.body != f.body {
		c.say(kindBody, "%s: the body that came is not the one that was accepted: %q, %q", ref, v.body, f.body)
	}
	c.signature(l, v)
	if _, high := c.wall(f.at, v.at); high.Before(f.due) {
		c.say(kindEarly, "%s was sent %s before its time", ref, f.due.Sub(high))
	}
	for _, whom := range []string{ofEndpoint(l.id), ofTenant(l.tenant), everybody} {
		for _, s := range c.quiets[whom] {
			if v.at.After(s.from) && (s.to.IsZero() || v.at.Before(s.to)) {
				c.say(kindQuiet, "a request to endpoint %d %s after %s was made quiet", l.id, v.at.Sub(s.from), whom)
			}
		}
	}
	for _, s := range l.hosts {
		if s.host == v.host && !s.to.IsZero() && v.at.After(s.to) {
			c.say(kindOldURL, "a request to %s %s after the url was changed", v.host, v.at.Sub(s.to))
		}
	}
}

// signature holds the signatures against the secrets: each that holds signs, the
// newest first, and no other.
func (c *checker) signature(l *life, v *visit) {
	ref := v.header.Get("webhook-id")
	seconds, _ := strconv.ParseInt(v.header.Get("webhook-timestamp"), 10, 64)
	stamp := time.Unix(seconds, 0)
	came := strings.Fields(v.header.Get("webhook-signature"))
	for i, s := range slices.Backward(l.secrets) {
		key, err := webhook.ParseSecret(s.secret)
		if err != nil {
			c.say(kindSignature, "endpoint %d: %v", l.id, err)
			return
		}
		must, may := c.signs(&s, v, stamp)
		signed := len(came) > 0 && came[0] == string(webhook.Sign(nil, ref, stamp, []byte(v.body), key))
		switch {
		case signed && !may:
			c.say(kindSignature, "endpoint %d got %s signed with secret %d, which does not hold", l.id, ref, i)
		case !signed && must:
			c.say(kindSignature, "endpoint %d got %s without the signature of secret %d in its place", l.id, ref, i)
		}
		if signed {
			came = came[1:]
			count("checked: a signature")
			if i < len(l.secrets)-1 && must {
				count("checked: a signature of a former secret")
			}
		}
	}
	if len(came) > 0 {
		c.say(kindSignature, "endpoint %d could not verify %s: %d signatures are of no secret that holds, or out of order", l.id, ref, len(came))
	}
	if low, high := c.wall(v.at, v.at); stamp.Before(low.Add(-time.Second)) || stamp.After(high.Add(time.Second)) {
		c.say(kindSignature, "endpoint %d got %s dated %s at %s", l.id, v.header.Get("webhook-id"), stamp.UTC(), high.UTC())
	}
}

// signs reports whether the secret must have signed a request, and whether it may
// have. While a rotation is under way both is right.
func (c *checker) signs(s *signing, v *visit, stamp time.Time) (must, may bool) {
	must, may = !s.by.IsZero() && v.at.After(s.by), !v.at.Before(s.from)
	if !s.dropped.IsZero() {
		must = must && v.at.Before(s.dropped)
		may = may && (s.goneBy.IsZero() || !v.at.After(s.goneBy))
	}
	if !s.ends.IsZero() && !v.at.Before(s.succeeded) {
		// One that has expired may be gone for good, whatever the clock says later.
		_, high := c.wall(s.succeeded, v.at)
		must = must && high.Before(s.ends)
		may = may && (!stamp.After(s.ends) || v.at.Equal(s.succeeded))
	}
	return must, may
}

// event checks what became of an event.
func (c *checker) event(f *fact) {
	if f.denied && f.succeeded {
		c.say(kindUnknown, "%s was answered 202 though the store told of an error", f.ref)
	}
	if f.answered > 0 {
		c.matches(f)
	}
	first := f.id + 1
	for id, endpoint := range f.targets {
		l := c.lives[endpoint]
		visits := c.visits[id]
		slices.SortStableFunc(visits, func(a, b *visit) int { return a.at.Compare(b.at) })
		for i, v := range visits {
			c.attempt(f, l, visits[:i], v)
		}
		d, stored := c.final[id]
		switch {
		case stored:
			c.state(f, l, &d, visits, int(id-first) >= f.open)
		case f.promised:
			c.say(kindLost, "%s of event %s, promised to endpoint %d", id.Text(posthorn.DeliveryPrefix), f.ref, endpoint)
		}
	}
}

func (c *checker) matches(f *fact) {
	got := map[int64]bool{}
	for _, e := range f.targets {
		got[e] = true
	}
	for id, l := range c.lives {
		if l.tenant != f.tenant {
			if got[id] {
				c.say(kindStranger, "%s was made a delivery of another tenant's endpoint %d", f.ref, id)
			}
			continue
		}
		must, may := l.matched(f.kind, f.began, f.answered)
		if must && !got[id] {
			c.say(kindMatch, "%s missed endpoint %d, which matched and lived", f.ref, id)
		}
		if got[id] && !may {
			c.say(kindMatch, "%s went to endpoint %d, which did not match", f.ref, id)
		}
	}
}

// attempt checks a request against those of the same delivery before it.
func (c *checker) attempt(f *fact, l *life, before []*visit, v *visit) {
	number, _ := strconv.Atoi(v.header.Get("posthorn-attempt"))
	last, from, since, asked := 1, f.at, f.at, time.Duration(0)
	if len(before) > 0 {
		p := before[len(before)-1]
		if p.ended.IsZero() || p.ended.After(v.at) {
			c.say(kindFlight, "%s to endpoint %d at %s and at %s", f.ref, l.id, p.at, v.at)
		}
		if p.answered/100 == 2 && !c.brokenOff(p.at, v.at) {
			c.say(kindAgain, "%s was sent to endpoint %d again %s after it was acknowledged", f.ref, l.id, v.at.Sub(p.ended))
		}
		last, _ = strconv.Atoi(p.header.Get("posthorn-attempt"))
		from, since, asked = p.at, p.ended, p.asked
		// What a dying process still held open ended later than the process, whose
		// successor may have repeated the attempt where nobody saw it.
		if at, ok := c.broken(p.at, v.at); ok && at.Before(since) {
			since = at
		}
		if number == last {
			// Only a process that ended repeats an attempt.
			if !c.brokenOff(p.at, v.at) {
				c.say(kindNumber, "%s: attempt %d came again", f.ref, number)
			}
			return
		}
	}
	if number < last {
		c.say(kindNumber, "%s: attempt %d follows attempt %d", f.ref, number, last)
		return
	}
	var least time.Duration
	for i := last; i < number; i++ {
		// The schedule is that of the attempt's beginning.
		back := c.back(from, v.at)
		wait, ok := l.wait(i-1, from, v.at, back)
		if !ok {
			c.say(kindNumber, "%s: attempt %d is beyond the schedule", f.ref, number)
			return
		}
		// What was asked for holds the endpoint; a resume ends that, and a clock that was
		// put back leaves the schedule.
		if wait = wait * 8 / 10; i == last && !back {
			wait = max(wait, asked)
		}
		least += wait
	}
	c.waited(f, last, number, since, least, v)
}

// waited checks that the waits between two attempts have passed by the wall
// clock, as long as it ever showed.
func (c *checker) waited(f *fact, last, number int, since time.Time, least time.Duration, v *visit) {
	if least == 0 {
		return
	}
	passed := v.at.Sub(since) + c.forward(since, v.at)
	if len(c.skews) > 0 && number == last+1 && since != f.at && !c.brokenOff(since, v.at) && !c.back(since, v.at) {
		// Without attempts between that nobody saw (such as one that a new process
		// repeated), the service's time must have shown it; what a clock that was put
		// back would make wait too long is read back.
		low, _ := c.wall(since, since)
		_, high := c.wall(since, v.at)
		passed = min(passed, high.Sub(low))
	}
	if passed < least {
		c.say(kindEarly, "%s: attempt %d came %s after attempt %d, not %s", f.ref, number, passed, last, least)
	}
}

// state checks where a delivery stands in the end.
func (c *checker) state(f *fact, l *life, d *posthorn.Delivery, visits []*visit, crowded bool) {
	acknowledged, lost := false, false
	for _, v := range visits {
		if v.answered/100 == 2 {
			acknowledged = true
			lost = lost || c.brokenOff(v.at, v.ended)
		}
	}
	name := fmt.Sprintf("%s of event %s to endpoint %d", d.ID.Text(posthorn.DeliveryPrefix), f.ref, l.id)
	// A crash may take the record of an acknowledged attempt with it; then it is
	// made again, and its end is another's.
	explained := acknowledged && !lost && !c.anyEnd()
	switch state := d.Progress.State; state {
	case posthorn.Pending:
		if c.settled && !c.asleep(l) {
			c.say(kindOpen, "%s is still %s, next at %s", name, d.Shown(), d.Progress.NextAt)
		}
	case posthorn.Succeeded:
		if !acknowledged {
			c.say(kindUnsent, "%s counts as delivered", name)
		}
	case posthorn.Failed:
		if explained {
			c.say(kindReason, "%s counts as failed and was acknowledged", name)
		}
		if _, more := l.leastAttempts(d.Progress.Attempts); more {
			c.say(kindReason, "%s failed after %d attempts", name, d.Progress.Attempts)
		}
	case posthorn.Canceled:
		if explained {
			c.say(kindReason, "%s counts as canceled and was acknowledged", name)
		}
		if d.Reason == posthorn.ReasonNone || l.deletedAt.IsZero() {
			c.say(kindReason, "%s was canceled (%q), its endpoint deleted at %s", name, d.Reason, l.deletedAt)
		}
	case posthorn.Expired:
		if crowded != (d.Reason == posthorn.ReasonBacklogFull) || d.Reason == posthorn.ReasonNone {
			c.say(kindReason, "%s expired (%q)", name, d.Reason)
		}
	}
}

func (c *checker) anyEnd() bool {
	return slices.ContainsFunc(c.ends, func(e end) bool { return e.rough })
}

// asleep reports whether the endpoint was left quiet.
func (c *checker) asleep(l *life) bool {
	for _, whom := range []string{ofEndpoint(l.id), ofTenant(l.tenant), everybody} {
		if s := c.quiets[whom]; len(s) > 0 && s[len(s)-1].to.IsZero() && l.deletedAt.IsZero() {
			return true
		}
	}
	return false
}

// leastAttempts is how many attempts the endpoint's shortest schedule has, and
// whether that is more than were made.
func (l *life) leastAttempts(made int) (least int, more bool) {
	for i, s := range l.settings {
		n := len(posthorn.DefaultPolicy().For(s.Settings).Schedule) + 1
		if i == 0 || n < least {
			least = n
		}
	}
	return least, made < least
}

// order holds the first attempts at each endpoint against the order of publishes:
// one that was answered before another began goes first. It is held against
// endpoints with one attempt at a time: of two attempts that start together, a
// notice may overtake the first and not the second.
func (c *checker) order() {
	type start struct {
		fact *fact
		at   time.Time
	}
	starts := map[int64][]start{}
	for _, f := range c.events {
		if f.delayed || f.answered == 0 {
			continue
		}
		for id, endpoint := range f.targets {
			if v := c.visits[id]; len(v) > 0 {
				starts[endpoint] = append(starts[endpoint], start{f, v[0].at})
			}
		}
	}
	for endpoint, list := range starts {
		if !c.lives[endpoint].oneByOne() {
			continue
		}
		slices.SortFunc(list, func(a, b start) int { return int(a.fact.began - b.fact.began) })
		answered := slices.Clone(list)
		slices.SortFunc(answered, func(a, b start) int { return int(a.fact.answered - b.fact.answered) })
		var latest start
		next := 0
		for _, s := range list {
			for ; next < len(answered) && answered[next].fact.answered < s.fact.began; next++ {
				if answered[next].at.After(latest.at) {
					latest = answered[next]
				}
			}
			if latest.fact != nil && s.at.Before(latest.at) {
				c.say(kindOrder, "endpoint %d: %s was sent %s before %s, which was published earlier", endpoint, s.fact.ref, latest.at.Sub(s.at), latest.fact.ref)
			}
		}
	}
}

// oneByOne reports whether the endpoint never took two attempts at a time.
func (l *life) oneByOne() bool {
	return !slices.ContainsFunc(l.settings, func(s setting) bool { return s.MaxInFlight != 1 })
}

func (c *checker) sample(s sample) {
	g, b := s.got, s.bound
	if g.Queued > b.Queued || g.QueuedBytes > b.QueuedBytes || g.InFlight > b.InFlight || g.Unrecorded > b.Unrecorded {
		c.say(kindMemory, "%s, and at most %s", figures(g), figures(b))
	}
}

func figures(s lane.Stats) string {
	return fmt.Sprintf("%d queued (%d bytes), %d in flight, %d unrecorded", s.Queued, s.QueuedBytes, s.InFlight, s.Unrecorded)
}
