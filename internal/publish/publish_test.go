package publish_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

func TestEventGoesToWhatMatches(t *testing.T) {
	w := newWorld(t, endpoints("cases.*", "assignments.*", "*", "cases.created cases.created", "webhooks.*"))
	got, err := w.send(t, event("cases.created"))
	if err != nil {
		t.Fatal(err)
	}
	want := []publish.Accepted{{
		Ref: posthorn.ID(1000).Text("evt_"), Type: "cases.created", Deliveries: 3,
		Timestamp: noon.Truncate(time.Millisecond),
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.lanes.want(t, "accept 1", "accept 3", "accept 4")
	body := `{"id":"` + want[0].Ref + `","type":"cases.created","timestamp":"2026-04-29T12:00:00.123Z","data":{"id":590}}`
	for i, work := range w.lanes.works {
		if string(work.Body) != body {
			t.Errorf("body = %s\nwant   %s", work.Body, body)
		}
		if work.ID != posthorn.ID(1001+i) || work.Event != 1000 || work.Tenant != acme.ID || !work.AcceptedAt.Equal(noon) {
			t.Errorf("delivery %d is %d of event %d of tenant %d", i, work.ID, work.Event, work.Tenant)
		}
	}
}

func TestPublicationHoldsWhatWasSaid(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	e := publish.Event{
		ID: "mine-1", Type: "cases.updated", Data: []byte(`{ "n": 1.0 }`),
		Timestamp: time.Date(2026, 4, 29, 11, 10, 0, 123_900_000, time.FixedZone("", 7200)),
		DeliverAt: noon.Add(time.Hour), Source: "/crm", Subject: "590", SourceID: "a.b",
	}
	if _, err := w.send(t, e); err != nil {
		t.Fatal(err)
	}
	w.lanes.want(t, "stored 1") // it waits for its time
	got := w.store.got[0].Events[0]
	if got.Hash == [32]byte{} {
		t.Error("the content of an event with an id has no hash")
	}
	got.Hash = [32]byte{}
	want := store.NewEvent{
		Key: "mine-1", Type: "cases.updated", Source: "/crm", Subject: "590", SourceID: "a.b",
		OccurredAt: time.Date(2026, 4, 29, 9, 10, 0, 123_000_000, time.UTC),
		DeliverAt:  time.Date(2026, 4, 29, 13, 0, 0, 124_000_000, time.UTC), // never early
		Body:       []byte(`{"id":"mine-1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{ "n": 1.0 }}`),
		Targets:    []store.PublishTarget{{Endpoint: 1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestContentHashTellsContentsApart(t *testing.T) {
	hash := func(e publish.Event) [32]byte {
		w := newWorld(t, endpoints())
		e.ID = "x"
		if _, err := w.send(t, e); err != nil {
			t.Fatal(err)
		}
		return w.store.got[0].Events[0].Hash
	}
	base := event("cases.created")
	same := base
	same.Timestamp, same.Source = noon.Add(-time.Hour), "/other" // no part of the content
	if hash(base) != hash(same) {
		t.Error("the timestamp is no part of the content")
	}
	otherType, spaced, past, later := base, base, base, base
	otherType.Type = "cases.updated"
	spaced.Data = []byte(`{"id": 590}`)
	past.DeliverAt, later.DeliverAt = noon.Add(-time.Hour), noon.Add(time.Hour)
	seen := map[[32]byte]string{hash(base): "the event itself"}
	for name, e := range map[string]publish.Event{"type": otherType, "data bytes": spaced, "deliver_at": later, "past deliver_at": past} {
		if other, twice := seen[hash(e)]; twice {
			t.Errorf("another %s has the hash of %s", name, other)
		}
		seen[hash(e)] = name
	}
}

func TestPastDeliverAtSendsNow(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	e := event("cases.created")
	e.DeliverAt = noon.Add(-time.Minute)
	if _, err := w.send(t, e); err != nil {
		t.Fatal(err)
	}
	w.lanes.want(t, "accept 1")
	if at := w.store.got[0].Events[0].DeliverAt; !at.IsZero() {
		t.Errorf("deliver_at = %v, want none", at)
	}
}

func code(err error) string { return posthorn.ErrorCode(err).String() }

func TestWhatIsRefused(t *testing.T) {
	with := func(f func(*publish.Event)) publish.Event {
		e := event("cases.created")
		f(&e)
		return e
	}
	for name, c := range map[string]struct {
		event publish.Event
		want  string // code and what the error says
	}{
		"no type":     {publish.Event{Data: []byte("{}")}, "invalid: /events/0/type is missing"},
		"no data":     {publish.Event{Type: "cases.created"}, "invalid: /events/0/data is missing"},
		"unknown":     {event("case.created"), "invalid: /events/0/type is not in the catalogue; the nearest is cases.created"},
		"far":         {event("invoices.paid"), "invalid: GET /v2.3/webhooks/event-types"},
		"group":       {event("cases.*"), "invalid: /events/0/type must be an event type"},
		"operational": {event("webhooks.ping"), "invalid: /events/0/type is an operational type"},
		"id":          {with(func(e *publish.Event) { e.ID = "evt_x" }), "invalid: /events/0/id must be"},
		"future":      {with(func(e *publish.Event) { e.Timestamp = noon.Add(24*time.Hour + 1) }), "invalid: /events/0/timestamp must be at most 24 hours ahead"},
		"late":        {with(func(e *publish.Event) { e.DeliverAt = noon.Add(15*24*time.Hour + 1) }), "invalid: /events/0/deliver_at must be at most 15 days ahead"},
		"tenant":      {with(func(e *publish.Event) { e.Tenant = "other" }), "invalid: /events/0/tenant must be acme"},
		"NUL":         {with(func(e *publish.Event) { e.Subject = "a\x00b" }), "invalid: /events/0/subject must be"},
		"large":       {with(func(e *publish.Event) { e.Data = object(publish.MaxEventSize) }), "too_large: /events/0 is 262253 bytes as delivered; at most 262144"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints("*"))
			_, err := w.send(t, c.event)
			wantCode, says, _ := strings.Cut(c.want, ": ")
			if err == nil || code(err) != wantCode || !strings.Contains(err.Error(), says) {
				t.Errorf("got %s: %v\nwant %s", code(err), err, c.want)
			}
			if len(w.store.got) != 0 {
				t.Error("it reached the store")
			}
			w.lanes.want(t)
		})
	}
}

// object is a JSON object of n bytes.
func object(n int) []byte {
	return []byte(`{"x":"` + strings.Repeat("x", n-8) + `"}`)
}

func TestWhatIsAtTheLimitIsAccepted(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	e := event("cases.created")
	e.Timestamp, e.DeliverAt = noon.Add(24*time.Hour), noon.Add(15*24*time.Hour)
	e.Data = object(publish.MaxEventSize - (262253 - publish.MaxEventSize))
	if _, err := w.send(t, e); err != nil {
		t.Error(err)
	}
	if n := len(w.store.got[0].Events[0].Body); n != publish.MaxEventSize {
		t.Errorf("the body has %d bytes", n)
	}
}

func TestAllFaultsAtOnce(t *testing.T) {
	w := newWorld(t, endpoints())
	_, err := w.ParseBatch([]byte(`{"events":[
		{"type":"case.created","data":{},"more":1},
		{"type":"cases.created","data":[],"timestamp":"2026-05-29T12:00:00Z","deliver_at":7}]}`))
	e, _ := errors.AsType[*posthorn.Error](err)
	if e == nil {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, f := range e.Faults {
		got = append(got, f.Pointer)
	}
	want := []string{"/events/0/more", "/events/0/type", "/events/1/data", "/events/1/deliver_at", "/events/1/timestamp"}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := w.ParseEvent([]byte(`{"type":"cases.created","data":{}}`)); err != nil {
		t.Error(err)
	}
	if _, err := w.ParseNDJSON([]byte(`{"type":"webhooks.ping","data":{}}`)); code(err) != "invalid" {
		t.Errorf("NDJSON with an operational type: %v", err)
	}
}

func TestRequestHoldsOneToAThousandEvents(t *testing.T) {
	w := newWorld(t, endpoints())
	for n, want := range map[int]string{0: "invalid", 1: "", 1000: "", 1001: "invalid"} {
		_, err := w.send(t, slices.Repeat([]publish.Event{event("cases.created")}, n)...)
		if got := code(err); err != nil && got != want || err == nil && want != "" {
			t.Errorf("%d events: %v", n, err)
		}
	}
}

func TestDelayIsBoundedByRetention(t *testing.T) {
	w := newWorld(t, endpoints(), func(c *publish.Config) { c.Retention = 25 * time.Hour })
	e := event("cases.created")
	e.DeliverAt = noon.Add(13 * time.Hour)
	if _, err := w.send(t, e); code(err) != "invalid" || !strings.Contains(err.Error(), "at most 12h30m0s ahead") {
		t.Errorf("got %v", err)
	}
}

func TestSuspendedTenantMayNotPublish(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	suspended := acme
	suspended.SuspendedAt = noon
	_, err := w.Publish(t.Context(), suspended, []publish.Event{event("cases.created")}, nil, nil, nil)
	if code(err) != "forbidden" {
		t.Errorf("got %v", err)
	}
}

func TestTooManyDeliveriesAreRefusedWithTheirNumber(t *testing.T) {
	w := newWorld(t, endpoints("*", "cases.*"), func(c *publish.Config) { c.MaxDeliveries = 5 })
	batch := func(n int) error {
		_, err := w.send(t, slices.Repeat([]publish.Event{event("cases.created")}, n)...)
		return err
	}
	if err := batch(3); code(err) != "too_large" || !strings.Contains(err.Error(), "makes 6 deliveries; one may make at most 5") {
		t.Errorf("got %v", err)
	}
	w.lanes.want(t)
	if err := batch(2); err != nil {
		t.Error(err)
	}
}

func TestOneEventsDeliveriesFitItsIds(t *testing.T) {
	w := newWorld(t, endpoints(slices.Repeat([]string{"*"}, posthorn.MaxSequence)...))
	if _, err := w.send(t, event("cases.created")); code(err) != "too_large" || !strings.Contains(err.Error(), "at most 16383") {
		t.Errorf("got %v", err)
	}
	w.lanes.want(t)
	w = newWorld(t, endpoints(slices.Repeat([]string{"*"}, posthorn.MaxSequence-1)...))
	if got, err := w.send(t, event("cases.created")); err != nil || got[0].Deliveries != 16383 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSlotsEndAsTheCommitDid(t *testing.T) {
	delayed := event("cases.created")
	delayed.DeliverAt = noon.Add(time.Hour)
	for name, c := range map[string]struct {
		publish func(context.Context, store.Publication) ([]store.Accepted, error)
		want    []string
		code    string
	}{
		"committed": {nil, []string{"accept 1", "stored 2", "accept 3", "stored 1", "stored 2", "stored 3"}, ""},
		"backlog full": {func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
			a := commitAll(p)
			a[0].Open = 1
			return a, nil
		}, []string{"accept 1", "stored 2", "stored 3", "stored 1", "stored 2", "stored 3"}, ""},
		"repeated": {func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
			a := commitAll(p)
			a[0].Repeated, a[0].Open = true, 0
			return a, nil
		}, []string{"release 1", "release 2", "release 3", "stored 1", "stored 2", "stored 3"}, ""},
		"overloaded":  {fails(store.ErrOverloaded), released(6), "unavailable"},
		"disk full":   {fails(store.ErrFull), released(6), "unavailable"},
		"unavailable": {fails(store.ErrUnavailable), released(6), "unavailable"},
		"closed":      {fails(store.ErrClosed), released(6), "unavailable"},
		"conflict":    {fails(&store.EventConflict{Index: 1}), released(6), "conflict"},
		"once reused": {fails(store.ErrOnceReused), released(6), "invalid"},
		"gone":        {fails(store.ErrNotFound), released(6), "not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints("*", "*", "*"))
			w.lanes.parked[2] = true
			w.store.publish = c.publish
			_, err := w.send(t, event("cases.created"), delayed)
			if c.code == "" && err != nil || c.code != "" && code(err) != c.code {
				t.Errorf("got %v, want %s", err, c.code)
			}
			e, _ := errors.AsType[*posthorn.Error](err)
			if c.code == "unavailable" && (e == nil || e.RetryAfter == 0) {
				t.Error("no time to try again is given")
			}
			if c.code == "conflict" && (e == nil || e.Faults[0].Pointer != "/events/1/id") {
				t.Errorf("faults = %v, want one at /events/1/id", e.Faults)
			}
			w.lanes.want(t, c.want...)
			targets := w.store.got[0].Events
			if !targets[0].Targets[1].Parked || targets[0].Targets[0].Parked || targets[1].Targets[1].Parked {
				t.Error("a delivery is stored parked when its slot is, and it is due")
			}
		})
	}
}

func fails(err error) func(context.Context, store.Publication) ([]store.Accepted, error) {
	return func(context.Context, store.Publication) ([]store.Accepted, error) { return nil, err }
}

func released(n int) (log []string) {
	for i := range n {
		log = append(log, fmt.Sprintf("release %d", i%3+1))
	}
	return log
}

func TestRepeatedRequestIsTheApisToAnswer(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	w.store.publish = fails(&store.ErrRepeated{Answer: []byte("before")})
	_, err := w.send(t, event("cases.created"))
	if again, ok := errors.AsType[*store.ErrRepeated](err); !ok || string(again.Answer) != "before" {
		t.Errorf("got %v", err)
	}
	w.lanes.want(t, "release 1")
}

func TestInternalErrorStaysInternal(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	w.store.publish = fails(errors.New("no such column: secret"))
	if _, err := w.send(t, event("cases.created")); code(err) != "internal" {
		t.Errorf("got %v", err)
	}
	w.lanes.want(t, "release 1")
}

func TestPanicsSettleSlots(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*world)
		want    []string
	}{
		"in the store": {func(w *world) {
			w.store.publish = func(context.Context, store.Publication) ([]store.Accepted, error) { panic("x") }
		}, []string{"release 1", "release 2"}},
		"while handing over":    {func(w *world) { w.lanes.panicsOnAccept = 1 }, []string{"stored 2"}},
		"while slots are taken": {func(w *world) { w.lanes.panicsOn = 2 }, []string{"release 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, endpoints("*", "*"))
			c.prepare(w)
			func() {
				defer func() {
					if recover() == nil {
						t.Error("the panic is swallowed")
					}
				}()
				_, _ = w.send(t, event("cases.created"))
			}()
			w.lanes.want(t, c.want...)
		})
	}
}

// A client that hangs up while the commit runs gets nothing, but what was
// committed is delivered.
func TestCallerGoesAwayDuringTheCommit(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	ctx, cancel := context.WithCancel(t.Context())
	w.store.publish = func(ctx context.Context, p store.Publication) ([]store.Accepted, error) {
		cancel()
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		return commitAll(p), nil
	}
	if _, err := w.Publish(ctx, acme, []publish.Event{event("cases.created")}, nil, nil, nil); err != nil {
		t.Error(err)
	}
	w.lanes.want(t, "accept 1")

	if _, err := w.Publish(ctx, acme, []publish.Event{event("cases.created")}, nil, nil, nil); code(err) != "unavailable" {
		t.Errorf("a caller who is gone before the commit: %v", err)
	}
	w.lanes.want(t)
	if len(w.store.got) != 1 {
		t.Error("an event of a caller who was gone was stored")
	}
}

func TestStaleMatchIsRepeated(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	if _, err := w.send(t, event("cases.created")); err != nil { // fills the cache
		t.Fatal(err)
	}
	w.lanes.want(t, "accept 1")
	w.store.set = endpoints("*", "cases.created")
	w.store.set.Version = 2
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		if p.SetVersion != 2 {
			return nil, store.ErrStale
		}
		return commitAll(p), nil
	}
	got, err := w.send(t, event("cases.created"))
	if err != nil || got[0].Deliveries != 2 {
		t.Errorf("got %+v, %v; want the new endpoint to see the event", got, err)
	}
	w.lanes.want(t, "release 1", "accept 1", "accept 2")

	// Endpoints that never stop changing: the last match is within the commit.
	stale := 0
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		if stale++; p.Match == nil {
			return nil, store.ErrStale
		}
		for range 2 { // a commit may be repeated
			if err := p.Match(endpoints("cases.*", "*", "cases.created")); err != nil {
				return nil, err
			}
		}
		return commitAll(p), nil
	}
	got, err = w.send(t, event("cases.created"))
	if err != nil || got[0].Deliveries != 3 || stale > 5 {
		t.Errorf("got %+v, %v after %d commits, want 3 deliveries", got, err, stale)
	}
	w.lanes.want(t, "release 1", "release 2", "release 1", "release 2", "release 1", "release 2", "release 1", "release 2",
		"release 1", "release 2", "release 3", "accept 1", "accept 2", "accept 3")
}

func TestNoticeLetsGoOfEndpoints(t *testing.T) {
	for _, n := range []store.Notice{
		{Kind: store.NoticeAll}, {Kind: store.NoticeTenant, Tenant: acme.ID},
	} {
		w := newWorld(t, endpoints("*"))
		_, _ = w.send(t, event("cases.created"))
		w.store.set = endpoints("*", "*")
		w.Notice(store.Notice{Kind: store.NoticeTenant, Tenant: 99})
		w.Notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: acme.ID, Endpoint: 2})
		if got, _ := w.send(t, event("cases.created")); got[0].Deliveries != 1 {
			t.Error("another tenant's change, or one that may have moved no version, made the endpoints be read again")
		}
		w.Notice(n)
		if got, _ := w.send(t, event("cases.created")); got[0].Deliveries != 2 {
			t.Errorf("after %+v the old endpoints are used", n)
		}
	}
}

func TestEndpointsThatCannotBeReadAreReadAgain(t *testing.T) {
	w := newWorld(t, endpoints("*"))
	w.store.setErr = store.ErrUnavailable
	if _, err := w.send(t, event("cases.created")); code(err) != "unavailable" {
		t.Errorf("got %v", err)
	}
	w.store.setErr = nil
	if _, err := w.send(t, event("cases.created")); err != nil {
		t.Errorf("the fault was kept: %v", err)
	}
}

func TestOperationalEventSparesTheEndpointItIsAbout(t *testing.T) {
	w := newWorld(t, endpoints("webhooks.*", "webhooks.endpoint.failing", "*", "cases.*"))
	if err := w.Operational(t.Context(), acme.ID, "webhooks.endpoint.failing", noon, []byte(`{"endpoint":"wh_1"}`), 1, nil); err != nil {
		t.Fatal(err)
	}
	w.lanes.want(t, "accept 2")
	if work := w.lanes.works[0]; work.Kind != posthorn.EventOperational || !strings.Contains(string(work.Body), `"data":{"endpoint":"wh_1"}`) {
		t.Errorf("work = %+v", work)
	}
}

func TestRateLimit(t *testing.T) {
	now := noon
	w := newWorld(t, endpoints(), func(c *publish.Config) {
		c.RatePerSecond = 10
		c.Now = func() time.Time { return now }
	})
	if _, err := w.send(t, slices.Repeat([]publish.Event{event("cases.created")}, 1000)...); err != nil {
		t.Fatal("a whole batch may come at once:", err)
	}
	_, err := w.send(t, event("cases.created"), event("cases.created"))
	if e, _ := errors.AsType[*posthorn.Error](err); e == nil || e.Code != posthorn.RateLimited || e.RetryAfter != 200*time.Millisecond {
		t.Errorf("got %v, want RateLimited for 200ms", err)
	}
	other := posthorn.Tenant{ID: 8, Name: "other"}
	if _, err := w.Publish(t.Context(), other, []publish.Event{event("cases.created")}, nil, nil, nil); err != nil {
		t.Error("another tenant is limited too:", err)
	}
	now = now.Add(200 * time.Millisecond)
	if _, err := w.send(t, event("cases.created"), event("cases.created")); err != nil {
		t.Error(err)
	}
}

func TestPublishedIsCounted(t *testing.T) {
	var events, deliveries int
	w := newWorld(t, endpoints("*", "cases.*"), func(c *publish.Config) {
		c.Published = func(e, d int) { events, deliveries = events+e, deliveries+d }
	})
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		a := commitAll(p)
		a[0].Repeated = true
		return a, nil
	}
	_, _ = w.send(t, event("cases.created"), event("cases.created"), event("assignments.created"))
	if events != 2 || deliveries != 3 {
		t.Errorf("%d events and %d deliveries were counted, want 2 and 3", events, deliveries)
	}
}

// A test is handed over as what a user asks for now, outside the queue and any line,
// with the count of cancellations from before its commit.
func TestATestIsHandedOverBesideTheQueue(t *testing.T) {
	w := newWorld(t, endpoints("cases.*"))
	w.lanes.canceled = 3
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		w.lanes.canceled++
		return commitAll(p), nil
	}
	tested, err := w.Test(t.Context(), acme, 1, posthorn.TypePing, []byte(`{}`), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.lanes.want(t, "take 1 of 3")
	got := w.lanes.works[0]
	if got.ID != tested.Delivery || got.Kind != posthorn.EventTest || !got.Aside || !got.Progress.Manual || got.EventKey != tested.Ref || len(got.Body) != got.Size || got.Size == 0 {
		t.Errorf("handed over %+v for %+v", got, tested)
	}
	if _, err := w.Test(t.Context(), posthorn.Tenant{ID: acme.ID, SuspendedAt: noon}, 1, posthorn.TypePing, []byte(`{}`), nil, nil); err == nil {
		t.Error("a suspended tenant's endpoint was tested")
	}
	w.lanes.want(t)
}
