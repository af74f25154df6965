package app

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/client"
)

// exactData are payloads that a program which reads and writes JSON anew would alter.
var exactData = []string{
	`{"id":1152921504606846977,"neg":-0,"exp":1E+2,"long":0.10000000000000000000001}`,
	`{"url":"https:\/\/example.com\/","quote":"\u0022","null":"\u0000","low":"\u00e4"}`,
	`{"name":"Zoë Ωmega 東京 🚚","pair":"\ud83d\ude9a","line":"a\u2028b c","html":"<b>&</b>"}`,
	"{\r\n\t\"b\" : 1 ,\n  \"a\":[ ] , \"\" : { }   }",
	`{"z":1,"a":2,"Z":3}`,
}

// What is published stays as it is, byte for byte: at the receiver, in the event by
// HTTP, in the export and in the stream. What has no one meaning is refused.
func TestPayloadsStayAsTheyAre(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path)
		token := s.token(t, "acme")
		api := must(client.New(client.Config{Server: s.base, Token: token}))(t)
		url, requests := listener(t)
		must(api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: url, Events: []string{"cases.*"}}))(t)
		raw := caller{described: describedBy(t, s.base), token: token}

		following := make(chan struct{})
		streamed := make(chan *client.Streamed, 2*len(exactData))
		go func() {
			defer close(streamed)
			changed := func(why error) {
				if why == nil {
					close(following)
				}
			}
			for e, err := range api.Stream(t.Context(), client.StreamOptions{Changed: changed}) {
				if err != nil {
					return
				}
				streamed <- e
			}
		}()
		<-following
		bodies := map[string]string{} // by event
		for i, data := range exactData {
			id := fmt.Sprint("exact-", i)
			raw.call(t, 202, "POST", "/events", fmt.Sprintf(`{"id":"%s","type":"cases.updated","data":%s}`, id, data))
			r := next(t, requests)
			if bodies[id] = string(r.body); !strings.HasSuffix(bodies[id], `,"data":`+data+`}`) {
				t.Errorf("the receiver got %q of %q", r.body, data)
			}
			if got := raw.call(t, 200, "GET", "/events/"+id, "").body; !strings.Contains(got, `"data":`+data) {
				t.Errorf("the event shows %q of %q", got, data)
			}
			if e := must(api.Event(t.Context(), id))(t); string(e.Data) != data {
				t.Errorf("the client has %q of %q", e.Data, data)
			}
		}
		for i := range exactData {
			e := <-streamed
			if id := fmt.Sprint("exact-", i); e.ID != id || string(e.Body) != bodies[id] {
				t.Errorf("the stream shows %q, the receiver got %q", e.Body, bodies[id])
			}
		}
		var export bytes.Buffer
		made := must(api.CreateExport(t.Context(), client.ExportBounds{}))(t)
		must(api.DownloadExport(t.Context(), made.ID, &export))(t)
		for i, data := range exactData {
			if !strings.Contains(export.String(), `"data":`+lineOf(data)) {
				t.Errorf("the export lacks %d: %q", i, data)
			}
		}
		for line := range strings.SplitSeq(strings.TrimSpace(export.String()), "\n") {
			if !json.Valid([]byte(line)) {
				t.Errorf("a line of the export is no JSON: %q", line)
			}
		}
		for _, bad := range []string{`{"a":1,"a":1}`, `{"a":{"b":1,"\u0062":2}}`, "{\"a\":\"\xff\"}", `{"a":"\ud800"}`, `{"a":01}`} {
			raw.call(t, http.StatusBadRequest, "POST", "/events", `{"type":"cases.updated","data":`+bad+`}`)
		}
		if n := len(requests); n != 0 {
			t.Errorf("%d more arrived", n)
		}
	})
}

// lineOf is how data stands on one line: each line break is a space, and every other
// byte is what it was.
func lineOf(data string) string { return strings.NewReplacer("\r", " ", "\n", " ").Replace(data) }
