package publish_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
)

// filtered are endpoints that want everything, each with a filter.
func filtered(filters ...string) store.EndpointSet {
	set := endpoints(strings.Split(strings.TrimSuffix(strings.Repeat("*|", len(filters)), "|"), "|")...)
	for i, f := range filters {
		set.Endpoints[i].Settings.Filter = f
	}
	return set
}

// targets are where an event of a publication goes, with notes.
func targets(e store.NewEvent) (list []string) {
	for _, t := range e.Targets {
		list = append(list, fmt.Sprint(t.Endpoint, " ", t.Note))
	}
	return list
}

func TestFiltersDecideWhoGetsAnEvent(t *testing.T) {
	w := newWorld(t, filtered("", `data.country == "DE"`, `data.amount > 100`, `type == "cases.created"`, `no longer compiles (`))
	got, err := w.send(t,
		publish.Event{Type: "cases.updated", Data: []byte(`{"country":"DE","amount":7}`)},
		publish.Event{ID: "my-id", Type: "cases.created", Data: []byte(`{"country":"FR","amount":101}`)},
		publish.Event{Type: "cases.created", Data: []byte(`{"amount":"much"}`)},
	)
	if err != nil {
		t.Fatal(err)
	}
	broken := "5 The filter failed: line 1, column 4: Syntax error: mismatched input 'longer' expecting <EOF>. The event was delivered all the same."
	for i, want := range [][]string{
		{"1 ", "2 ", broken},
		{"1 ", "3 ", "4 ", broken},
		{"1 ", "2 The filter failed: data has no such member; has(data.…) asks for one. The event was delivered all the same.",
			"3 The filter failed: an operation does not fit the types that are in data. The event was delivered all the same.", "4 ", broken},
	} {
		if diff := cmp.Diff(want, targets(w.store.got[0].Events[i])); diff != "" {
			t.Errorf("event %d: %s", i, diff)
		}
		if got[i].Deliveries != len(want) {
			t.Errorf("event %d: %d deliveries", i, got[i].Deliveries)
		}
	}
	w.lanes.want(t, "accept 1", "accept 2", "accept 5", "accept 1", "accept 3", "accept 4", "accept 5", "accept 1", "accept 2", "accept 3", "accept 4", "accept 5")
}

// A filter that changes while an event is matched is asked as it is then.
func TestAChangedFilterIsAskedAnew(t *testing.T) {
	w := newWorld(t, filtered(`true`, ``))
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		if p.SetVersion == 1 {
			w.store.set = filtered(`false`, ``)
			w.store.set.Version = 2
			return nil, store.ErrStale
		}
		return commitAll(p), nil
	}
	if _, err := w.send(t, event("cases.updated")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"2 "}, targets(w.store.got[1].Events[0])); diff != "" {
		t.Error(diff)
	}
}

// What filters keep away counts for no limit; what they let pass does.
func TestFiltersAndTheLimitOfARequest(t *testing.T) {
	filters := []string{"", `data.n == 1`, `data.n == 1`, `data.n == 1`}
	w := newWorld(t, filtered(filters...), func(c *publish.Config) { c.MaxDeliveries = 3 })
	for n, ok := range map[int]bool{1: false, 2: true} {
		_, err := w.send(t, publish.Event{Type: "cases.updated", Data: fmt.Appendf(nil, `{"n":%d}`, n)})
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "makes 4 deliveries") {
			t.Errorf("n %d: %v", n, err)
		}
	}
}

// An operational event is sifted too, and never sent to whom it is about.
func TestFiltersOfOperationalEvents(t *testing.T) {
	set := filtered(`data.endpoint == "wh_1"`, `data.endpoint == "wh_2"`, ``)
	for i := range set.Endpoints {
		set.Endpoints[i].Events[0] = "webhooks.*"
	}
	w := newWorld(t, set)
	if err := w.Operational(t.Context(), acme.ID, "webhooks.endpoint.failing", noon, []byte(`{"endpoint":"wh_1"}`), 3, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1 "}, targets(w.store.got[0].Events[0])); diff != "" {
		t.Error(diff)
	}
}

// Within a commit only what is new is asked of filters, for a short time: others wait.
func TestFiltersTakeLittleTimeWithinACommit(t *testing.T) {
	slow := `data.list.filter(a, data.list.exists(b, a < b && b == 999)).size() == 0`
	var list []byte
	for i := range 1000 {
		list = fmt.Appendf(list, "%d,", i)
	}
	e := publish.Event{Type: "cases.updated", Data: fmt.Appendf(nil, `{"list":[%s]}`, list[:len(list)-1])}
	w := newWorld(t, filtered(`false`))
	w.store.publish = func(_ context.Context, p store.Publication) ([]store.Accepted, error) {
		if p.Match == nil {
			return nil, store.ErrStale
		}
		var filters []string
		for i := range 400 {
			filters = append(filters, fmt.Sprintf("%s && %d == %d", slow, i, i))
		}
		if err := p.Match(filtered(append(filters, `false`)...)); err != nil {
			return nil, err
		}
		return commitAll(p), nil
	}
	if _, err := w.send(t, e); err != nil {
		t.Fatal(err)
	}
	got := w.store.got[len(w.store.got)-1].Events[0].Targets
	notes := 0
	for _, to := range got {
		if to.Endpoint == 401 {
			t.Error("what was asked before is not known any more")
		}
		if strings.Contains(to.Note, "took too long") {
			notes++
		}
	}
	if notes < 200 {
		t.Errorf("%d of 400 new filters were not asked for want of time, want most", notes)
	}
}
