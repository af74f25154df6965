package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/cli"
)

// A server, or a proxy, that sends without end: each command ends, and says what it was
// and what to look at.
func TestAServerWithoutEndEndsTheCommand(t *testing.T) {
	answers := func(kind, begin, on string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, begin)
			for chunk := []byte(strings.Repeat(on, 1<<16/len(on))); r.Context().Err() == nil; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}
	}
	round := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Link", `</v2.3/webhooks/endpoints?cursor=a>; rel="next"`)
		fmt.Fprint(w, `{"data":[{"id":"x_1"}],"next_cursor":"a"}`)
	}
	export := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			w.WriteHeader(http.StatusCreated)
			fmt.Fprint(w, `{"data":{"id":"exp_1"}}`)
			return
		}
		answers("application/x-ndjson", "", "x")(w, r)
	}
	file := filepath.Join(t.TempDir(), "export.ndjson")
	for _, tc := range []struct {
		args   []string
		handle http.HandlerFunc
		says   string
	}{
		{[]string{"event", "tail"}, answers("text/event-stream", ": posthorn\nid: a\n\ndata: ", "x"), "A line of the event stream is longer than 4 MiB"},
		{[]string{"event", "tail", "-o", "jsonl"}, answers("text/event-stream", ": posthorn\nid: a\n\n", "data: x\n"), "An event of the stream is longer than 4 MiB"},
		{[]string{"listen", "--forward-to", "http://127.0.0.1:1/"}, answers("text/event-stream", ": ", "x"), "A line of the event stream"},
		{[]string{"endpoint", "list"}, round, "The list /endpoints goes round"},
		{[]string{"delivery", "list", "--limit", "600"}, round, "The list /deliveries goes round"},
		{[]string{"event-type", "list"}, round, "The list /event-types goes round"},
		{[]string{"endpoint", "get", "wh_1"}, answers("application/json", `{"data":{"id":"`, "x"), "The answer to GET /endpoints/wh_1 is larger than 64 MiB"},
		{[]string{"export", "--file", file}, export, "A line of the export is longer than 16 MiB"},
	} {
		s := httptest.NewServer(tc.handle)
		code, out, talk := run(t, []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=pht_x", "HOME=" + t.TempDir()}, tc.args...)
		s.Close()
		if code != cli.ExitFailed || !strings.Contains(talk, tc.says) || !strings.Contains(talk, "is the server's URL right") {
			t.Errorf("%q: exit %d, %d bytes of output\n%s", tc.args, code, len(out), talk)
		}
	}
}
