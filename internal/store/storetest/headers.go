package storetest

import (
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// setHeaders makes names the headers of an endpoint, with values as "name=box".
func (w *world) setHeaders(to posthorn.Endpoint, names []string, values ...string) (posthorn.Endpoint, error) {
	var sealed []store.SealedHeader
	for _, v := range values {
		name, box, _ := strings.Cut(v, "=")
		sealed = append(sealed, store.SealedHeader{Name: name, Sealed: store.Sealed{KeyID: "k1", Box: []byte(box), CreatedAt: w.now}})
	}
	return w.s.UpdateSettings(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(s *posthorn.Settings) error {
		s.Headers = names
		return nil
	}, sealed...)
}

// headers checks what an attempt would be given, and that no other box is kept.
func (w *world) headers(to posthorn.Endpoint, want ...string) {
	w.Helper()
	target, err := w.s.Target(w.Context(), to.ID)
	w.ok(err)
	var got, boxes []string
	for _, h := range target.Headers {
		got = append(got, h.Name+"="+string(h.Box))
	}
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		w.Error(diff)
	}
	for _, b := range w.boxes(10) {
		if b.Kind == store.BoxHeader && b.Endpoint == to.ID {
			boxes = append(boxes, string(b.Sealed))
		}
	}
	if len(boxes) != len(want) {
		w.Errorf("the boxes are %q", boxes)
	}
}

var headerPromises = []promise{
	{"header values come and go with the names in the settings", func(w *world) {
		to := w.endpoint()
		w.headers(to)
		got, err := w.setHeaders(to, []string{"A", "B"}, "A=1", "B=2")
		w.ok(err)
		if diff := cmp.Diff([]string{"A", "B"}, got.Settings.Headers); diff != "" || got.SettingsVersion != 2 || got.Version != to.Version {
			w.Errorf("%+v", got)
		}
		w.headers(to, "A=1", "B=2")
		w.noticed()
		// A new value alone is a change, and what is not named keeps its own.
		got, err = w.setHeaders(to, []string{"A", "B"}, "B=3")
		w.ok(err)
		if got.SettingsVersion != 3 || len(w.noticed()) != 1 {
			w.Errorf("a new value is no change: %+v", got)
		}
		w.headers(to, "A=1", "B=3")
		_, err = w.setHeaders(to, []string{"B"})
		w.ok(err)
		w.headers(to, "B=3")
		_, err = w.setHeaders(to, []string{"B"}, "C=4")
		if err == nil {
			w.Error("a value without a name was taken")
		}
		w.headers(to, "B=3")
		_, err = w.setHeaders(to, nil)
		w.ok(err)
		w.headers(to)
	}},
	{"a url of another origin takes the header values away in its commit", func(w *world) {
		to := w.endpoint() // https://example.com/1
		_, err := w.setHeaders(to, []string{"A"}, "A=1")
		w.ok(err)
		move := func(url string) posthorn.Endpoint {
			w.Helper()
			e, err := w.s.UpdateEndpoint(w.Context(), w.change(), to.Tenant, to.Ref, 0, func(e *posthorn.Endpoint) error { e.URL = url; return nil })
			w.ok(err)
			return e
		}
		if e := move("https://EXAMPLE.com:443/elsewhere?a=b"); e.SettingsVersion != 2 || len(e.Settings.Headers) != 1 {
			w.Errorf("the same origin: %+v", e)
		}
		w.headers(to, "A=1")
		for i, url := range []string{"https://example.com.evil.example/1", "https://example.com:8443/1", "http://example.com/1", "https://example.org/1"} {
			_, err := w.setHeaders(to, []string{"A"}, "A=1")
			w.ok(err)
			if e := move(url); len(e.Settings.Headers) != 0 || e.SettingsVersion != int64(2*i+4) {
				w.Errorf("%s: %+v", url, e.Settings)
			}
			w.headers(to)
			move("https://example.com/1")
		}
	}},
	{"header values go with their endpoint", func(w *world) {
		to := w.endpoint()
		_, err := w.setHeaders(to, []string{"A"}, "A=1")
		w.ok(err)
		w.ok(w.s.DeleteEndpoint(w.Context(), w.change(), to.Tenant, to.Ref, 0))
		w.now = w.now.Add(48 * time.Hour)
		w.sweep(store.Retention{Events: time.Hour})
		if n := len(w.boxes(10)); n != 0 {
			w.Errorf("%d boxes are left", n)
		}
	}},
}
