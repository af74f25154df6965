package api

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// opened is a long answer of a real connection.
type opened struct {
	t    *testing.T
	body io.ReadCloser
}

// open begins a long answer; as may be a platform's token, which names the tenant.
func (w *world) open(t *testing.T, server *httptest.Server, as, tenant, path string) opened {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", server.URL+Base+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+w.tokens[as])
	if tenant != "" {
		r.Header.Set(tenantHeader, tenant)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	if resp.StatusCode != 200 {
		t.Fatalf("GET %s: %s", path, resp.Status)
	}
	return opened{t, resp.Body}
}

// first reads the beginning, so that the answer is under way.
func (o opened) first() opened {
	o.t.Helper()
	if _, err := io.ReadFull(o.body, make([]byte, 10)); err != nil {
		o.t.Fatal(err)
	}
	return o
}

// rest reads to the end, which must come soon.
func (o opened) rest() string {
	o.t.Helper()
	late := time.AfterFunc(20*time.Second, func() { o.body.Close() })
	b, _ := io.ReadAll(o.body) // an export is broken off
	if !late.Stop() {
		o.t.Fatal("it goes on")
	}
	return string(b)
}

// ended waits until the server has ended n answers of the route.
func (w *world) ended(t *testing.T, route string, n int) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for strings.Count(w.log.String(), `"route":"GET `+Base+route+`"`) < n {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("it is still served")
		}
	}
}

// ways are how the right to read ends, with what the reader is told.
var ways = []struct {
	what     string
	platform bool // the platform's token reads
	end      func(w *world, tenant, token string)
	reason   string
}{
	{"the tenant of a platform's token is deleted", true, func(w *world, tenant, _ string) {
		w.do("platform", "DELETE", "/tenants/"+tenant, "").want(204)
	}, "The tenant was deleted."},
	{"it is deleted and its name another's", true, func(w *world, tenant, _ string) {
		w.do("platform", "DELETE", "/tenants/"+tenant, "").want(204)
		w.do("platform", "POST", "/tenants", `{"name":"`+tenant+`"}`).want(201)
	}, "The tenant was deleted."},
	{"it is suspended and deleted", true, func(w *world, tenant, _ string) {
		w.do("platform", "POST", "/tenants/"+tenant+"/suspend", "").want(200)
		w.do("platform", "DELETE", "/tenants/"+tenant, "").want(204)
	}, "The tenant was deleted."},
	{"the tenant of its own token is deleted", false, func(w *world, tenant, _ string) {
		w.do("platform", "DELETE", "/tenants/"+tenant, "").want(204)
	}, "The token is unknown or was revoked."},
	{"the token is revoked", false, func(w *world, _, token string) {
		w.do("platform", "DELETE", "/tokens/"+token, "").want(204)
	}, "The token is unknown or was revoked."},
}

// reader makes a tenant with events, and who reads in the way.
func (w *world) reader(name string, platform bool, events int) (as, tenant, token string) {
	w.do("platform", "POST", "/tenants", `{"name":"`+name+`"}`).want(201)
	made := w.do("platform", "POST", "/tokens", `{"tenant":"`+name+`","scopes":["webhooks:read","events:publish"]}`).want(201)
	w.tokens[name] = made.text("data.token")
	large := `{"type":"cases.updated","data":{"x":"` + strings.Repeat("x", 240<<10) + `"}}`
	for range events { // many more than sockets hold
		w.do(name, "POST", "/events", large).want(202)
	}
	if platform {
		return "platform", name, made.text("data.id")
	}
	return name, "", made.text("data.id")
}

// A stream ends with the right to read, and says why.
func TestAStreamSaysWhyItEnds(t *testing.T) {
	w, _, _ := streamWorld(t)
	server := httptest.NewServer(w.handler)
	t.Cleanup(server.Close) // after the clients have left
	for i, way := range ways {
		name := fmt.Sprintf("t%d", i)
		as, tenant, token := w.reader(name, way.platform, 0)
		o := w.open(t, server, as, tenant, "/stream").first()
		w.do(name, "POST", "/events", `{"type":"cases.updated","data":{"n":1}}`).want(202)
		way.end(w, name, token)
		if got := o.rest(); !strings.HasSuffix(got, ": ended: "+way.reason+"\n\n") {
			t.Errorf("%s: the stream ends with %q", way.what, got[max(0, len(got)-200):])
		}
	}
	// A suspended tenant's may be read.
	as, tenant, _ := w.reader("suspended", true, 0)
	o := w.open(t, server, as, tenant, "/stream").first()
	for _, what := range []string{"suspend", "resume"} {
		w.do("platform", "POST", "/tenants/suspended/"+what, "").want(200)
	}
	id := w.event("suspended", "cases.updated")
	var got strings.Builder
	for one := make([]byte, 1); !strings.Contains(got.String(), id); got.Write(one) {
		if _, err := io.ReadFull(o.body, one); err != nil {
			t.Fatalf("a suspended tenant's stream has ended: %q, %v", got.String(), err)
		}
	}
}

// Who does not read what is sent keeps neither a stream nor an export when the right to
// read ends: it does not wait until the reader counts as too slow.
func TestALongAnswerEndsWhoeverDoesNotRead(t *testing.T) {
	w, _, _ := streamWorld(t)
	server := httptest.NewServer(w.handler)
	t.Cleanup(server.Close) // after the clients have left
	ends := map[string]int{}
	for i, way := range ways {
		name := fmt.Sprintf("t%d", i)
		as, tenant, token := w.reader(name, way.platform, 40)
		w.pass(time.Second)
		c := w.as(as, "POST", "/exports", `{}`)
		if tenant != "" {
			c.with(tenantHeader, tenant)
		}
		export := c.do().want(201).text("data.id")
		w.open(t, server, as, tenant, "/exports/"+export+"/content").first()
		w.open(t, server, as, tenant, "/stream").first()
		for range 40 {
			w.do(name, "POST", "/events", `{"type":"cases.updated","data":{"x":"`+strings.Repeat("x", 240<<10)+`"}}`).want(202)
		}
		began := time.Now()
		way.end(w, name, token)
		for _, route := range []string{"/stream", "/exports/{exportId}/content"} {
			ends[route]++
			w.ended(t, route, ends[route])
		}
		if took := time.Since(began); took > streamWrite/2 {
			t.Fatalf("%s: it took %s", way.what, took)
		}
	}
}

// An export that is read is told why it is cut short.
func TestAnExportSaysWhyItIsCutShort(t *testing.T) {
	w := newWorld(t, serves)
	for i, way := range ways {
		name := fmt.Sprintf("t%d", i)
		as, tenant, token := w.reader(name, way.platform, 3)
		w.pass(time.Second)
		export := w.as("platform", "POST", "/exports", `{}`).with(tenantHeader, name).do().want(201).text("data.id")
		h := &hooked{fn: func() { way.end(w, name, token) }}
		cut := w.as(as, "GET", "/exports/"+export+"/content", "").with(tenantHeader, tenant).cut(h)
		if got := h.Body.String(); !cut || !strings.HasSuffix(got, "}\n"+`{"cut":{"reason":"`+way.reason+`"}}`+"\n") {
			t.Errorf("%s: cut %v, it ends with %q", way.what, cut, got[max(0, len(got)-200):])
		}
	}
}
