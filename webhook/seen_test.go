package webhook_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

// desk is a receiver with a clock that the test sets. It counts what was handled.
type desk struct {
	testing.TB
	http.Handler
	now     time.Time
	handled map[string]int
}

func newDesk(t testing.TB, rc *webhook.Receiver) *desk {
	d := &desk{TB: t, now: sent, handled: map[string]int{}}
	rc.Verifier.Now = func() time.Time { return d.now }
	d.Handler = rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		e := webhook.FromContext(r.Context())
		d.handled[strings.TrimSpace(e.Endpoint+" "+e.ID)]++
	}))
	return d
}

// post answers a request of an event that is dated and signed.
func (d *desk) post(id string, at time.Time, secrets ...string) *httptest.ResponseRecorder {
	keys := make([][]byte, len(secrets))
	for i, s := range secrets {
		keys[i] = mustKey(d, s)
	}
	r := httptest.NewRequest("POST", "/hooks", strings.NewReader(eventBody))
	r.Header.Set(webhook.HeaderID, id)
	r.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	r.Header.Set(webhook.HeaderSignature, string(webhook.Sign(nil, id, at, []byte(eventBody), keys...)))
	return serve(d, r)
}

// A request that was recorded is never handled again, however many others came: it is
// known for as long as its signature is good, which is twice the tolerance if it is
// dated ahead. What there is no room for is not handled.
func TestARecordedRequestIsNeverHandledAgain(t *testing.T) {
	for _, tc := range []struct {
		name      string
		tolerance time.Duration
		ahead     time.Duration // how far the request is dated ahead
		seen      webhook.Seen
	}{
		{"as it comes", webhook.DefaultTolerance, 0, nil},
		{"dated as far ahead as may be", webhook.DefaultTolerance, webhook.DefaultTolerance, nil},
		{"dated back", webhook.DefaultTolerance, -time.Minute, nil},
		{"a short tolerance", 10 * time.Second, 10 * time.Second, nil},
		{"a long tolerance", time.Hour, time.Hour, nil},
		{"parts of seconds", 1999 * time.Millisecond, time.Second, nil},
		{"no tolerance", 0, 0, nil},
		{"a Memory of one's own", 20 * time.Minute, 20 * time.Minute, &webhook.Memory{Limit: 2}},
	} {
		v := verifier(t, secret)
		v.Tolerance = tc.tolerance
		d := newDesk(t, &webhook.Receiver{Verifier: v, Seen: tc.seen, MaxSeen: 2})
		dated := sent.Add(tc.ahead)
		d.post("evt_1", dated, secret)
		d.post("evt_2", sent, secret)
		whole := tc.tolerance.Truncate(time.Second)
		for after := time.Duration(0); after <= 2*whole; after += max(whole/10, time.Second) {
			d.now = sent.Add(after)
			if got := d.post("evt_3", d.now, secret); got.Code != 503 {
				t.Errorf("%s: a third event after %v: %d, want 503", tc.name, after, got.Code)
			} else if wait, err := strconv.Atoi(got.Header().Get("Retry-After")); err != nil || wait < 1 {
				t.Errorf("%s: Retry-After is %q", tc.name, got.Header().Get("Retry-After"))
			} else if room := sent.Add(2*whole + time.Second); after == 0 && d.now.Add(time.Duration(wait)*time.Second).Before(room) {
				t.Errorf("%s: to come again after %d s, when there is no room", tc.name, wait)
			}
		}
		// A replay keeps the id, as attempts do: it is tried when the first one's time ends.
		d.now = sent.Add(2 * whole)
		want := 401
		if tc.ahead == tc.tolerance.Truncate(time.Second) {
			want = 200
		}
		if got := d.post("evt_1", dated, secret); got.Code != want {
			t.Errorf("%s: the replay: %d, want %d", tc.name, got.Code, want)
		}
		if d.handled["evt_1"] != 1 || d.handled["evt_2"] != 1 || d.handled["evt_3"] != 0 {
			t.Errorf("%s: handled %v", tc.name, d.handled)
		}
		d.now = d.now.Add(2*whole + time.Second)
		if got := d.post("evt_3", d.now, secret); got.Code != 200 || d.handled["evt_3"] != 1 {
			t.Errorf("%s: a third event when the first is over: %d, handled %v", tc.name, got.Code, d.handled)
		}
	}
}

// Each attempt has a signature of its own: the id is known for as long as the last of
// them is good, not only the one that was handled.
func TestEachAttemptThatCameKeepsTheID(t *testing.T) {
	const again = 9 * time.Minute // when the second attempt came, dated ahead
	for _, later := range []time.Duration{again, 10*time.Minute + time.Second, 15 * time.Minute, 19 * time.Minute} {
		d := newDesk(t, &webhook.Receiver{Verifier: verifier(t, secret), MaxSeen: 2})
		d.post("evt_1", d.now, secret)
		d.post("evt_2", d.now, secret)
		d.now = sent.Add(again)
		second := d.now.Add(webhook.DefaultTolerance)
		d.post("evt_1", second, secret) // answered 200, and recorded by somebody
		d.now = sent.Add(later)
		over := later > 10*time.Minute // the time of evt_2, which alone makes room
		for i, want := range []int{200, 503} {
			if !over {
				want = 503
			}
			if got := d.post(fmt.Sprint("other_", i), d.now, secret).Code; got != want {
				t.Errorf("after %v another: %d, want %d", later, got, want)
			}
		}
		if got := d.post("evt_1", second, secret).Code; got != 200 || d.handled["evt_1"] != 1 {
			t.Errorf("after %v the replay: %d, handled %v", later, got, d.handled)
		}
	}
}

// An event that failed leaves nothing behind, and takes no room.
func TestWhatFailedIsHandledAgain(t *testing.T) {
	v := verifier(t, secret)
	v.Now = func() time.Time { return sent }
	calls := 0
	rc := &webhook.Receiver{Verifier: v, MaxSeen: 1}
	h := rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if calls++; calls <= 3 {
			w.WriteHeader(500)
		}
	}))
	d := &desk{TB: t, Handler: h}
	for i, want := range []int{500, 500, 500, 200, 200} {
		if got := d.post("evt_1", sent, secret).Code; got != want {
			t.Errorf("time %d: %d, want %d", i+1, got, want)
		}
	}
	if calls != 4 {
		t.Errorf("%d calls", calls)
	}
}

// What is being handled takes room too, and is never forgotten.
func TestWhatIsBeingHandledIsNeverForgotten(t *testing.T) {
	v := verifier(t, secret)
	now := sent
	v.Now = func() time.Time { return now }
	enter, leave := make(chan bool), make(chan bool)
	rc := &webhook.Receiver{Verifier: v, MaxSeen: 1}
	d := &desk{TB: t, Handler: rc.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { enter <- true; <-leave }))}
	var wg sync.WaitGroup
	wg.Go(func() { d.post("evt_1", sent, secret) })
	<-enter
	now = now.Add(time.Hour) // long after its time
	if got := d.post("evt_2", now, secret); got.Code != 503 || got.Header().Get("Retry-After") != "" {
		t.Errorf("another: %d, Retry-After %q", got.Code, got.Header().Get("Retry-After"))
	}
	if got := d.post("evt_1", now, secret); got.Code != 409 {
		t.Errorf("the same: %d, want 409", got.Code)
	}
	leave <- true
	wg.Wait()
	if got := d.post("evt_1", now, secret); got.Code != 200 {
		t.Errorf("the same when it was handled: %d", got.Code)
	}
}

// Without need nothing is forgotten: an attempt hours later is known as well.
func TestIDsAreKeptWhileThereIsRoom(t *testing.T) {
	d := newDesk(t, &webhook.Receiver{Verifier: verifier(t, secret)})
	d.post("evt_1", d.now, secret)
	for _, later := range []time.Duration{time.Minute, 5 * time.Hour, 24 * time.Hour, 30 * 24 * time.Hour} {
		d.now = sent.Add(later)
		d.post(fmt.Sprint("other", later), d.now, secret)
		if got := d.post("evt_1", d.now, secret).Code; got != 200 || d.handled["evt_1"] != 1 {
			t.Errorf("after %v: %d, handled %d times", later, got, d.handled["evt_1"])
		}
	}
}

// Ids are an endpoint's own: what another endpoint sent, with another secret, hides
// nothing, wherever the ids are kept.
func TestEndpointsShareNoIDs(t *testing.T) {
	a, b := webhook.NewSecret(), webhook.NewSecret()
	both := func() *webhook.Verifier {
		v, err := webhook.NewVerifierFor(map[string][]string{"a": {a}, "b": {webhook.NewSecret(), b}})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tc := range []struct {
		name string
		make func() (forA, forB *desk)
		want string // what the handlers were told of the endpoint
	}{
		{"one receiver", func() (*desk, *desk) { d := newDesk(t, &webhook.Receiver{Verifier: both()}); return d, d }, "named"},
		{"one receiver with a Memory", func() (*desk, *desk) {
			d := newDesk(t, &webhook.Receiver{Verifier: both(), Seen: &webhook.Memory{}})
			return d, d
		}, "named"},
		{"one receiver with a database", func() (*desk, *desk) {
			d := newDesk(t, &webhook.Receiver{Verifier: both(), Seen: &database{}})
			return d, d
		}, "named"},
		{"two receivers with one Memory", func() (*desk, *desk) {
			m := &webhook.Memory{}
			return newDesk(t, &webhook.Receiver{Verifier: verifier(t, a), Seen: m}), newDesk(t, &webhook.Receiver{Verifier: verifier(t, b), Seen: m})
		}, ""},
		{"two receivers with one database", func() (*desk, *desk) {
			m := &database{}
			return newDesk(t, &webhook.Receiver{Verifier: verifier(t, a), Seen: m}), newDesk(t, &webhook.Receiver{Verifier: verifier(t, b), Seen: m})
		}, ""},
	} {
		forA, forB := tc.make()
		for i := range 3 { // the first is handled
			if got := forA.post("order-1", sent, a).Code; got != 200 {
				t.Errorf("%s: request %d of a: %d", tc.name, i, got)
			}
			if got := forB.post("order-1", sent, b).Code; got != 200 {
				t.Errorf("%s: request %d of b: %d", tc.name, i, got)
			}
		}
		keyA, keyB := "order-1", "order-1"
		if tc.want == "named" {
			keyA, keyB = "a order-1", "b order-1"
		}
		if forA.handled[keyA] != 1 || forB.handled[keyB] != 1 {
			t.Errorf("%s: handled %v and %v", tc.name, forA.handled, forB.handled)
		}
	}
}

// An endpoint that floods the receiver takes nobody's room but its own.
func TestAnEndpointsFloodRefusesNobodyElse(t *testing.T) {
	a, b := webhook.NewSecret(), webhook.NewSecret()
	v, err := webhook.NewVerifierFor(map[string][]string{"a": {a}, "b": {b}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, &webhook.Receiver{Verifier: v, MaxSeen: 3})
	refused := 0
	for i := range 10 {
		if d.post(fmt.Sprint("flood_", i), sent, a).Code == 503 {
			refused++
		}
	}
	if got := d.post("evt_1", sent, b).Code; got != 200 || refused != 7 {
		t.Errorf("the other: %d; %d of the flood were refused", got, refused)
	}
}

// While a secret is replaced, an event may come with the old one, with both, and with
// the new one: it is the same event, also to a process that starts meanwhile.
func TestARotationSharesItsIDs(t *testing.T) {
	old, current := webhook.NewSecret(), webhook.NewSecret()
	type step struct {
		accepts []string // nil: the receiver as it was
		signs   []string
	}
	for _, tc := range []struct {
		name  string
		steps []step
	}{
		{"old, then new", []step{{[]string{current, old}, []string{old}}, {nil, []string{current}}}},
		{"new, then old", []step{{[]string{old, current}, []string{current}}, {nil, []string{old}}}},
		{"both, then each", []step{{[]string{current, old}, []string{current, old}}, {nil, []string{old}}, {nil, []string{current}}}},
		{"the same secret twice", []step{{[]string{old, old}, []string{old}}, {nil, []string{old}}}},
		{"a process that has both", []step{{[]string{old}, []string{old}}, {[]string{current, old}, []string{current}}}},
		{"a process that has the new one", []step{{[]string{old}, []string{old}}, {[]string{current, old}, []string{current, old}}, {[]string{current}, []string{current}}}},
		{"a process that has the new one, the receiver had both", []step{{[]string{current, old}, []string{old}}, {[]string{current}, []string{current}}}},
		{"back to the old one", []step{{[]string{current, old}, []string{current}}, {[]string{old}, []string{old}}}},
	} {
		for name, seen := range map[string]webhook.Seen{"Memory": &webhook.Memory{}, "database": &database{}, "own": nil} {
			var d *desk
			handled := 0
			for i, s := range tc.steps {
				if s.accepts != nil && !(i > 0 && seen == nil) { // a Memory of its own knows nothing of another process
					if d != nil {
						handled += d.handled["evt_1"]
					}
					d = newDesk(t, &webhook.Receiver{Verifier: verifier(t, s.accepts...), Seen: seen})
				} else if s.accepts != nil {
					break
				}
				if got := d.post("evt_1", sent, s.signs...).Code; got != 200 {
					t.Errorf("%s, %s, step %d: %d", tc.name, name, i+1, got)
				}
			}
			if handled += d.handled["evt_1"]; handled != 1 {
				t.Errorf("%s, %s: handled %d times", tc.name, name, handled)
			}
		}
	}
}

// While one process handles an event that came with the old secret, another one does
// not handle it with the new one.
func TestARotationHandlesNothingTwiceAtOnce(t *testing.T) {
	old, current := webhook.NewSecret(), webhook.NewSecret()
	seen := &webhook.Memory{}
	enter, leave := make(chan bool), make(chan bool)
	slow := &webhook.Receiver{Verifier: verifier(t, old, current), Seen: seen}
	h := slow.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { enter <- true; <-leave; w.WriteHeader(500) }))
	calls := 0
	quick := (&webhook.Receiver{Verifier: verifier(t, current, old), Seen: seen}).Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { calls++ }))
	r := post(t, "evt_1", eventBody, old)
	var wg sync.WaitGroup
	wg.Go(func() { serve(h, r) })
	<-enter
	for _, s := range []string{current, old} {
		if got := serve(quick, post(t, "evt_1", eventBody, s)).Code; got != 409 {
			t.Errorf("meanwhile: %d", got)
		}
	}
	leave <- true
	wg.Wait()
	if got := serve(quick, post(t, "evt_1", eventBody, current)).Code; got != 200 || calls != 1 {
		t.Errorf("when the first has failed: %d, %d calls", got, calls)
	}
}

func TestVerifiersForEndpoints(t *testing.T) {
	a, b := webhook.NewSecret(), webhook.NewSecret()
	for name, endpoints := range map[string]map[string][]string{
		"none": nil, "no secrets": {"a": {a}, "b": nil}, "a bad secret": {"a": {a, "whsec_"}},
		"one secret of two": {"a": {a}, "b": {b, a}},
	} {
		if _, err := webhook.NewVerifierFor(endpoints); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), a[6:]) {
			t.Errorf("%s: the error holds a secret", name)
		}
	}
	v, err := webhook.NewVerifierFor(map[string][]string{"a": {a}, "b": {b}})
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, &webhook.Receiver{Verifier: v})
	// Whoever has one secret cannot take another endpoint's request for his own.
	if got := d.post("evt_1", sent, a, b).Code; got != 401 || len(d.handled) != 0 {
		t.Errorf("signed by both: %d, handled %v", got, d.handled)
	}
	if got := d.post("evt_1", sent, webhook.NewSecret(), b).Code; got != 200 || d.handled["b evt_1"] != 1 {
		t.Errorf("signed by one: %d, handled %v", got, d.handled)
	}
}

// What fails halfway holds nothing.
func TestAStoreThatFailsHalfway(t *testing.T) {
	old, current := webhook.NewSecret(), webhook.NewSecret()
	seen := &halfway{fail: 2}
	d := newDesk(t, &webhook.Receiver{Verifier: verifier(t, current, old), Seen: seen})
	for i, want := range []int{503, 200, 200} {
		if got := d.post("evt_1", sent, old).Code; got != want {
			t.Errorf("time %d: %d, want %d", i+1, got, want)
		}
	}
	if d.handled["evt_1"] != 1 {
		t.Errorf("handled %v", d.handled)
	}
}

// A request whose time ends between verifying and claiming is not handled: what was
// remembered of it may be forgotten in that moment.
func TestARequestWhoseTimeEndsMeanwhileIsNotHandled(t *testing.T) {
	for _, tc := range []struct {
		late time.Duration // how old it is when it is claimed
		want int
	}{{0, 200}, {5 * time.Minute, 200}, {5*time.Minute + time.Second, 401}, {time.Hour, 401}} {
		var d *desk
		seen := &slow{claim: func() { d.now = sent.Add(tc.late) }}
		var why error
		d = newDesk(t, &webhook.Receiver{Verifier: verifier(t, secret), Seen: seen, Refused: func(_ *http.Request, err error) { why = err }})
		if got := d.post("evt_1", sent, secret).Code; got != tc.want || (why == nil) != (tc.want == 200) {
			t.Errorf("claimed after %v: %d (%v), want %d", tc.late, got, why, tc.want)
		}
		if again := d.post("evt_1", d.now, secret).Code; again != 200 || d.handled["evt_1"] != 1 {
			t.Errorf("claimed after %v: the next attempt is answered %d, handled %v", tc.late, again, d.handled)
		}
	}
}

// slow is a database that takes its time.
type slow struct {
	webhook.Memory
	claim func()
}

func (s *slow) Claim(ctx context.Context, id string) (webhook.Claim, error) {
	s.claim()
	return s.Memory.Claim(ctx, id)
}

// halfway fails at one claim.
type halfway struct {
	webhook.Memory
	claims, fail int
}

func (h *halfway) Claim(ctx context.Context, id string) (webhook.Claim, error) {
	if h.claims++; h.claims == h.fail {
		return webhook.Fresh, errBroken
	}
	return h.Memory.Claim(ctx, id)
}

// Whatever is released once more, what was handled stays so.
func TestWhatWasHandledStaysSo(t *testing.T) {
	m, ctx := &webhook.Memory{Limit: 1}, t.Context()
	for _, handled := range []bool{true, true, false, true} {
		m.Release(ctx, "1", handled) // the first without a claim
		if got, err := m.Claim(ctx, "1"); got != webhook.Handled || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	}
	full, ok := errors.AsType[*webhook.FullError](func() error { _, err := m.Claim(ctx, "2"); return err }())
	if !ok || full.Limit != 1 || full.After < 10*time.Minute || full.After > 10*time.Minute+time.Second {
		t.Errorf("another: %+v", full)
	}
}

func TestMemoryFromManySides(t *testing.T) {
	m := &webhook.Memory{Limit: 50}
	var mu sync.Mutex
	fresh := 0
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				id := fmt.Sprint(i)
				if c, _ := m.Claim(context.Background(), id); c == webhook.Fresh {
					mu.Lock()
					fresh++
					mu.Unlock()
					m.Release(context.Background(), id, true)
				}
			}
		})
	}
	wg.Wait()
	if fresh != 50 {
		t.Errorf("%d of 50 were fresh", fresh)
	}
}
