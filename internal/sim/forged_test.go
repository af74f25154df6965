package sim

import (
	"net/http"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/webhook"
)

var forgedAt = time.Date(2026, 4, 29, 9, 0, 0, 0, time.UTC)

// forged is a history in which all went well: two tenants with an endpoint each,
// an event of the first that failed once and was then acknowledged, and another
// published after it.
func forged(t *testing.T) *history {
	h := newHistory()
	h.settled, h.calm = true, true
	for id := int64(1); id <= 2; id++ {
		h.lives[id] = &life{
			id: id, tenant: id, born: between{1, 2},
			secrets:  []signing{{secret: webhook.NewSecret(), from: forgedAt.Add(-hour), by: forgedAt.Add(-hour)}},
			hosts:    []hosted{{host: "r" + strconv.Itoa(int(id)), from: forgedAt}},
			settings: []setting{{forgedAt, forgedAt, posthorn.Settings{MaxInFlight: 1}}},
			patterns: []pattern{{between{1, 2}, []posthorn.Pattern{"cases.*"}}},
		}
	}
	first := h.forgeEvent(1000, 10)
	h.forgeEvent(2000, 12)
	h.forgeVisit(t, first, 1, 0, 500)
	h.forgeVisit(t, first, 2, 6*second, 200)
	h.forgeVisit(t, h.events[1], 1, 7*second, 200)
	return h
}

func (h *history) forgeEvent(id posthorn.ID, began int64) *fact {
	f := &fact{
		id: id, ref: id.Text(posthorn.EventPrefix), kind: "cases.updated", tenant: 1, at: forgedAt, due: forgedAt,
		body: "{}", open: 1, targets: map[posthorn.ID]int64{id + 1: 1}, promised: true, began: began, answered: began + 1,
	}
	h.add(f)
	d := posthorn.Delivery{ID: id + 1}
	d.Progress.State = posthorn.Succeeded
	h.final[id+1] = d
	return f
}

func (h *history) forgeVisit(t *testing.T, f *fact, number int, after time.Duration, status int) *visit {
	l := h.lives[1]
	key, err := webhook.ParseSecret(l.secrets[0].secret)
	if err != nil {
		t.Fatal(err)
	}
	v := &visit{at: forgedAt.Add(after), ended: forgedAt.Add(after + 10*time.Millisecond), host: l.host(), body: f.body, answered: status, header: http.Header{}}
	v.header.Set("webhook-id", f.ref)
	v.header.Set("webhook-timestamp", strconv.FormatInt(v.at.Unix(), 10))
	v.header.Set("webhook-signature", string(webhook.Sign(nil, f.ref, v.at, []byte(v.body), key)))
	v.header.Set("posthorn-delivery", (f.id + 1).Text(posthorn.DeliveryPrefix))
	v.header.Set("posthorn-attempt", strconv.Itoa(number))
	h.visits = append(h.visits, v)
	return v
}

// state changes where the first delivery stands in the end.
func (h *history) state(s posthorn.State, r posthorn.Reason) {
	d := h.final[1001]
	d.Progress.State, d.Reason = s, r
	h.final[1001] = d
}

func TestCheckerFindsNothingWhereAllWentWell(t *testing.T) {
	if said := forged(t).complaints(); len(said) > 0 {
		t.Errorf("%v", said)
	}
}

// The checker complains of each history in which a promise is broken.
func TestCheckerComplainsOfWhatIsForged(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		forge      func(t *testing.T, h *history)
	}{
		{"a promised delivery is not stored", kindLost, func(_ *testing.T, h *history) { delete(h.final, 1001) }},
		{"a promised event was never stored", kindLost, func(_ *testing.T, h *history) { h.promise(1, "nothing", 1, false, 1) }},
		{"a delivery never ends", kindOpen, func(_ *testing.T, h *history) { h.state(posthorn.Pending, "") }},
		{"delivered without an acknowledgement", kindUnsent, func(_ *testing.T, h *history) { h.visits[1].answered = 500 }},
		{"failed though acknowledged", kindReason, func(_ *testing.T, h *history) { h.state(posthorn.Failed, "") }},
		{"failed before the schedule's end", kindReason, func(_ *testing.T, h *history) {
			h.visits[1].answered = 500
			h.state(posthorn.Failed, "")
		}},
		{"canceled, and the endpoint lives", kindReason, func(_ *testing.T, h *history) {
			h.visits[1].answered = 500
			h.state(posthorn.Canceled, posthorn.ReasonEndpointDeleted)
		}},
		{"expired without a reason", kindReason, func(_ *testing.T, h *history) { h.state(posthorn.Expired, "") }},
		{"a matching endpoint was missed", kindMatch, func(_ *testing.T, h *history) {
			l := *h.lives[1]
			l.id, l.hosts = 3, []hosted{{host: "r3"}}
			h.lives[3] = &l
		}},
		{"an endpoint got what it did not ask for", kindMatch, func(_ *testing.T, h *history) {
			h.lives[1].patterns[0].events = []posthorn.Pattern{"orders.*"}
		}},
		{"answered with another number of deliveries", kindMatch, func(_ *testing.T, h *history) {
			h.promise(1, h.events[0].ref, 10, false, 2)
		}},
		{"two attempts at a time", kindFlight, func(_ *testing.T, h *history) { h.visits[0].ended = h.visits[1].at.Add(second) }},
		{"an attempt after success", kindAgain, func(t *testing.T, h *history) {
			h.forgeVisit(t, h.events[0], 3, 6*hour, 200)
		}},
		{"another tenant's receiver", kindStranger, func(_ *testing.T, h *history) { h.visits[1].host = "r2" }},
		{"a receiver that nobody registered", kindStranger, func(_ *testing.T, h *history) { h.visits[1].host = "elsewhere" }},
		{"another endpoint's delivery", kindStranger, func(_ *testing.T, h *history) { h.events[0].targets[1001] = 2 }},
		{"an unknown event", kindStranger, func(_ *testing.T, h *history) { h.visits[1].header.Set("webhook-id", "evt_nobody") }},
		{"another body", kindBody, func(_ *testing.T, h *history) { h.visits[1].body = "{ }" }},
		{"another signature", kindSignature, func(_ *testing.T, h *history) { h.lives[1].secrets[0].secret = webhook.NewSecret() }},
		{"a former secret signs no more within its overlap", kindSignature, func(_ *testing.T, h *history) {
			l := h.lives[1]
			l.secrets = []signing{{secret: webhook.NewSecret(), from: forgedAt.Add(-2 * hour), by: forgedAt.Add(-2 * hour), ends: forgedAt.Add(day)}, l.secrets[0]}
		}},
		{"a secret that expired signs", kindSignature, func(_ *testing.T, h *history) { h.lives[1].secrets[0].ends = forgedAt.Add(-minute) }},
		{"a secret that was ended signs", kindSignature, func(_ *testing.T, h *history) {
			s := &h.lives[1].secrets[0]
			s.dropped, s.goneBy = forgedAt.Add(-minute), forgedAt.Add(-minute)
		}},
		{"the new secret does not sign", kindSignature, func(_ *testing.T, h *history) {
			l := h.lives[1]
			l.secrets[0].ends = forgedAt.Add(day)
			l.secrets = append(l.secrets, signing{secret: webhook.NewSecret(), from: forgedAt.Add(-minute), by: forgedAt.Add(-minute)})
		}},
		{"a signature's date", kindSignature, func(t *testing.T, h *history) {
			h.visits[1].at, h.visits[1].ended = h.visits[1].at.Add(hour), h.visits[1].ended.Add(hour)
		}},
		{"a retry too early", kindEarly, func(_ *testing.T, h *history) { h.visits[0].ended = h.visits[1].at.Add(-3 * second) }},
		{"Retry-After was not waited for", kindEarly, func(_ *testing.T, h *history) { h.visits[0].asked = minute }},
		{"before deliver_at", kindEarly, func(_ *testing.T, h *history) { h.events[0].due = forgedAt.Add(hour) }},
		{"a clock that stepped forward excuses only itself", kindEarly, func(_ *testing.T, h *history) {
			h.visits[0].asked = hour
			h.skews = []skew{{forgedAt.Add(3 * second), 0, minute}}
		}},
		{"an attempt number again", kindNumber, func(_ *testing.T, h *history) { h.visits[1].header.Set("posthorn-attempt", "1") }},
		{"an attempt beyond the schedule", kindNumber, func(_ *testing.T, h *history) { h.visits[1].header.Set("posthorn-attempt", "12") }},
		{"while paused", kindQuiet, func(_ *testing.T, h *history) {
			h.quiets[ofEndpoint(1)] = []span{{forgedAt.Add(second), forgedAt.Add(hour)}}
		}},
		{"while suspended", kindQuiet, func(_ *testing.T, h *history) { h.quiets[ofTenant(1)] = []span{{from: forgedAt.Add(second)}} }},
		{"while sending is off", kindQuiet, func(_ *testing.T, h *history) { h.quiets[everybody] = []span{{from: forgedAt.Add(second)}} }},
		{"to the old url", kindOldURL, func(_ *testing.T, h *history) { h.lives[1].hosts[0].to = forgedAt.Add(second) }},
		{"out of order", kindOrder, func(_ *testing.T, h *history) {
			for _, v := range h.visits[:2] {
				v.at, v.ended = v.at.Add(7500*time.Millisecond), v.ended.Add(7500*time.Millisecond)
			}
		}},
		{"past the head of a line", kindLine, func(t *testing.T, h *history) {
			h.lives[1].settings[0].Ordered = true
			h.visits[2].at, h.visits[2].ended = forgedAt.Add(3*second), forgedAt.Add(3*second)
		}},
		{"before the head's attempt ended", kindLine, func(t *testing.T, h *history) {
			h.lives[1].settings[0].Ordered = true
			h.visits[1].ended = h.visits[2].at.Add(second)
		}},
		{"past the head of a line that just became one", kindLine, func(t *testing.T, h *history) {
			h.lives[1].settings = append(h.lives[1].settings, setting{forgedAt.Add(second), forgedAt.Add(2 * second), posthorn.Settings{MaxInFlight: 1, Ordered: true}})
			h.visits[2].at, h.visits[2].ended = forgedAt.Add(3*second), forgedAt.Add(3*second)
		}},
		{"faster than the rate", kindRate, func(t *testing.T, h *history) { h.lives[1].settings[0].RatePerSecond = 0.9 }},
		{"more in memory than may be", kindMemory, func(_ *testing.T, h *history) {
			h.samples = []sample{{lane.Stats{QueuedBytes: 2}, lane.Stats{QueuedBytes: 1}}}
		}},
		{"an error of the store answered 202", kindUnknown, func(_ *testing.T, h *history) {
			h.events[0].denied = true
			h.promise(1, h.events[0].ref, 10, false, 1)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := forged(t)
			c.forge(t, h)
			said := h.complaints()
			if !slices.ContainsFunc(said, func(x complaint) bool { return x.kind == c.kind }) {
				t.Errorf("no complaint of the kind %q: %v", c.kind, said)
			}
		})
	}
}

// Neither what happened before a change was answered, nor what is delayed, is held
// against a line; and the rate is not one of another time.
func TestCheckerAllowsWhatIsNotInLine(t *testing.T) {
	for name, forge := range map[string]func(h *history){
		"in line": func(h *history) { h.lives[1].settings[0].Ordered = true },
		"not yet": func(h *history) {
			h.lives[1].settings = append(h.lives[1].settings, setting{forgedAt.Add(second), forgedAt.Add(4 * second), posthorn.Settings{MaxInFlight: 1, Ordered: true}})
			h.visits[2].at, h.visits[2].ended = forgedAt.Add(3*second), forgedAt.Add(3*second)
		},
		"delayed": func(h *history) {
			h.lives[1].settings[0].Ordered = true
			h.events[1].delayed = true
			h.visits[2].at, h.visits[2].ended = forgedAt.Add(3*second), forgedAt.Add(3*second)
		},
		"a rate that is kept": func(h *history) { h.lives[1].settings[0].RatePerSecond = 1 },
	} {
		h := forged(t)
		h.calm = false
		forge(h)
		// A forged time is not the one that was signed.
		said := slices.DeleteFunc(h.complaints(), func(c complaint) bool { return c.kind == kindSignature })
		if len(said) > 0 {
			t.Errorf("%s: %v", name, said)
		}
	}
}

// A crash excuses the one attempt that it may have made twice.
func TestCheckerAllowsACrashItsRepeat(t *testing.T) {
	h := forged(t)
	h.calm = false
	h.ends = []end{{at: forgedAt.Add(6500 * time.Millisecond), rough: true}}
	h.forgeVisit(t, h.events[0], 2, 7*second, 200)
	if said := h.complaints(); len(said) > 0 {
		t.Errorf("%v", said)
	}
	h.forgeVisit(t, h.events[0], 2, 8*second, 200)
	if said := h.complaints(); len(said) == 0 {
		t.Error("a second repeat for one crash was allowed")
	}
}

// Whatever makes a script fail, dropping steps finds it.
func TestReduceFindsTheStepsThatMatter(t *testing.T) {
	s := newScript(7)
	want := []int{s.Steps[3].Place, s.Steps[20].Place, s.Steps[41].Place}
	tries := 0
	got := reduce(s, func(less script) bool {
		tries++
		for _, p := range want {
			if !slices.ContainsFunc(less.Steps, func(st step) bool { return st.Place == p }) {
				return false
			}
		}
		return true
	})
	var places []int
	for _, st := range got.Steps {
		places = append(places, st.Place)
	}
	if !slices.Equal(places, want) || tries > 300 {
		t.Errorf("%d tries found %v, want %v", tries, places, want)
	}
	if again := s.keeping(t, "3,20,41"); again.flag() != " -keep 3,20,41" {
		t.Errorf("kept %q", again.flag())
	}
}

// A script is the same whenever its seed makes it, and as large as was said.
func TestScriptsAreMadeFromTheirSeeds(t *testing.T) {
	for seed := range uint64(200) {
		a, b := newScript(seed), newScript(seed)
		if a.String() != b.String() {
			t.Fatalf("seed %d makes two scripts", seed)
		}
		events := 0
		for _, st := range a.Steps {
			events += st.events()
		}
		if events < eventsPerWorld || len(a.Endpoints) != endpointsPerWorld {
			t.Errorf("seed %d: %d events, %d endpoints", seed, events, len(a.Endpoints))
		}
	}
}

func TestAReadBackWaitsByAShorterSchedule(t *testing.T) {
	l := &life{settings: []setting{
		{from: forgedAt},
		{from: forgedAt.Add(minute), Settings: posthorn.Settings{RetrySchedule: []int{5}}},
	}}
	for _, c := range []struct {
		from     time.Duration
		readBack bool
		wait     time.Duration
		ok       bool
	}{
		{0, false, 2 * hour, true},
		{0, true, 5 * second, true},
		{2 * minute, false, 0, false},
		{2 * minute, true, 0, false}, // no schedule has the attempt
	} {
		wait, ok := l.wait(3, forgedAt.Add(c.from), forgedAt.Add(3*minute), c.readBack)
		if wait != c.wait || ok != c.ok {
			t.Errorf("from %s, read back %t: %s, %t", c.from, c.readBack, wait, ok)
		}
	}
}
