package storetest

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (w *world) streamEnd() store.StreamPlace {
	w.Helper()
	p, err := w.s.StreamEnd(w.Context())
	w.ok(err)
	return p
}

// stream reads from a place until there is no more, and returns where it came to.
func (w *world) stream(f store.StreamFilter, after store.StreamPlace) (events []posthorn.Event, end store.StreamPlace) {
	w.Helper()
	deadline := time.Now().Add(time.Minute)
	for time.Now().Before(deadline) {
		p, err := w.s.Stream(w.Context(), f, after)
		w.ok(err)
		if len(p.Events) != len(p.Places) {
			w.Fatalf("%d events at %d places", len(p.Events), len(p.Places))
		}
		events, after = append(events, p.Events...), p.Next
		if !p.More && !p.Unsettled {
			return events, after
		}
	}
	w.Fatal("the stream never ends")
	return nil, after
}

func eventIDs(events []posthorn.Event) (list []posthorn.ID) {
	for _, e := range events {
		list = append(list, e.ID)
	}
	return list
}

// typed makes the event one of another type.
func typed(e store.NewEvent, eventType string) store.NewEvent {
	e.Type = eventType
	e.Body = posthorn.AppendBody(nil, e.Key, eventType, e.OccurredAt, []byte(`{}`))
	return e
}

var streamPromises = []promise{
	{"the stream has every event of the tenant with its body, in order, from any place", func(w *world) {
		other := w.newTenant("other")
		before := w.streamEnd()
		w.publish(w.event("early"))
		end := w.streamEnd()
		var want []posthorn.ID
		for i := range 5 {
			want = append(want, w.publish(w.event([]string{"", "mine"}[i/4]))[0].ID)
			p := w.publication(w.event(""))
			p.Tenant, p.SetVersion = other.ID, w.setVersion(other)
			_, err := w.s.Publish(w.Context(), p)
			w.ok(err)
		}
		f := store.StreamFilter{Tenant: w.tenant.ID}
		got, _ := w.stream(f, end)
		w.same(eventIDs(got), want)
		for i := range got {
			e, err := w.s.EventByRef(w.Context(), w.tenant.ID, got[i].Ref())
			w.ok(err)
			if !bytes.Equal(e.Body, got[i].Body) || e.Body == nil {
				w.Errorf("body %q, want %q", got[i].Body, e.Body)
			}
		}
		if got[4].Ref() != "mine" {
			w.Errorf("ref %s", got[4].Ref())
		}
		for _, from := range []store.StreamPlace{before, {}} {
			got, _ := w.stream(f, from)
			w.same(eventIDs(got)[1:], want)
		}
		page, err := w.s.Stream(w.Context(), f, end)
		for w.ok(err); page.Unsettled; w.ok(err) {
			page, err = w.s.Stream(w.Context(), f, end)
		}
		for i, place := range page.Places {
			got, _ := w.stream(f, place)
			w.same(eventIDs(got), want[i+1:])
		}
		got, last := w.stream(f, page.Next)
		w.same(eventIDs(got), nil)
		next := w.publish(w.event(""))[0].ID
		got, _ = w.stream(f, last)
		w.same(eventIDs(got), []posthorn.ID{next})
	}},
	{"the stream selects by type and endpoint as it was matched", func(w *world) {
		a, b := w.endpoint(), w.endpoint()
		end := w.streamEnd()
		operational := typed(w.event("", a), "webhooks.endpoint.paused")
		operational.Kind = posthorn.EventOperational
		test := typed(w.event(posthorn.TestPrefix+"1", a), "cases.closed")
		test.Kind = posthorn.EventTest
		ids := map[string]posthorn.ID{}
		for name, e := range map[string]store.NewEvent{
			"both": w.event("", a, b), "b": typed(w.event("", b), "assignments.created"), "none": w.event(""),
			"operational": operational, "test": test,
		} {
			ids[name] = w.publish(e)[0].ID
		}
		// A finished delivery counts as an open one does.
		w.record(w.result(ids["b"]+1, b, 0, succeeds()))
		for want, f := range map[string]store.StreamFilter{
			"b both none":           {},
			"b both":                {Endpoint: b.ID},
			"both operational test": {Endpoint: a.ID},
			"both none":             {Types: []posthorn.Pattern{"cases.*"}},
			"b none both":           {Types: []posthorn.Pattern{"cases.updated", "assignments.*"}},
			"operational":           {Types: []posthorn.Pattern{"webhooks.*"}},
			"both test":             {Endpoint: a.ID, Types: []posthorn.Pattern{"*"}},
		} {
			f.Tenant = w.tenant.ID
			got, _ := w.stream(f, end)
			var list []posthorn.ID
			for name := range strings.FieldsSeq(want) {
				list = append(list, ids[name])
			}
			slices.Sort(list)
			w.same(eventIDs(got), list)
		}
	}},
	{"a page of the stream is bounded in rows and bytes", func(w *world) {
		end := w.streamEnd()
		large := w.event("")
		large.Body = posthorn.AppendBody(nil, "", large.Type, w.now, []byte(`{"x":"`+strings.Repeat("x", 250<<10)+`"}`))
		var want []posthorn.ID
		for range 6 {
			e := large
			e.Body = bytes.Clone(large.Body)
			want = append(want, w.publish(e)[0].ID)
		}
		for range 2 {
			events := make([]store.NewEvent, store.StreamRows)
			for i := range events {
				events[i] = w.event("")
			}
			for _, a := range w.publish(events...) {
				want = append(want, a.ID)
			}
		}
		f := store.StreamFilter{Tenant: w.tenant.ID}
		// Until all of it is settled a page may be shorter.
		page, err := w.s.Stream(w.Context(), f, end)
		for w.ok(err); page.Unsettled; w.ok(err) {
			page, err = w.s.Stream(w.Context(), f, end)
		}
		if len(page.Events) != 4 || !page.More {
			w.Errorf("a page of %d events of 250 KiB, more %v", len(page.Events), page.More)
		}
		got, _ := w.stream(f, end)
		w.same(eventIDs(got), want)
	}},
	{"a reader of the stream misses nothing that is published meanwhile", func(w *world) {
		const publishers, each = 8, 40
		f := store.StreamFilter{Tenant: w.tenant.ID}
		at := w.streamEnd()
		version := w.setVersion(w.tenant)
		var all sync.Map
		var publishing sync.WaitGroup
		for range publishers {
			publishing.Go(func() {
				for range each {
					a, err := w.s.Publish(w.Context(), store.Publication{
						Tenant: w.tenant.ID, SetVersion: version, At: w.now, BacklogLimit: 1000, Events: []store.NewEvent{w.event("")},
					})
					if err != nil {
						w.Error(err)
						return
					}
					all.Store(a[0].ID, true)
				}
			})
		}
		done := make(chan struct{})
		go func() { publishing.Wait(); close(done) }()
		seen := map[posthorn.ID]int{}
		for finished := false; ; {
			select {
			case <-done:
				finished = true
			default:
			}
			events, next := w.stream(f, at)
			at = next
			for _, e := range events {
				seen[e.ID]++
			}
			if finished {
				break
			}
		}
		all.Range(func(id, _ any) bool {
			if n := seen[id.(posthorn.ID)]; n != 1 {
				w.Errorf("%v was seen %d times", id, n)
			}
			return true
		})
		if len(seen) != publishers*each {
			w.Errorf("%d of %d seen", len(seen), publishers*each)
		}
	}},
}
