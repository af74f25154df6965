package cli_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/webhook"
)

// shells runs a test with each of the shells that are here.
func shells(t *testing.T, test func(t *testing.T, shell string)) {
	needs(t, "sh", "curl")
	for _, shell := range []string{"sh", "dash", "bash"} {
		if _, err := exec.LookPath(shell); err == nil {
			t.Run(shell, func(t *testing.T) { test(t, shell) })
		}
	}
}

// runsInShell gives what was printed to a shell, as `posthorn event curl … | sh` does, and
// fails if that made a file.
func runsInShell(t *testing.T, shell, dir, command string) {
	t.Helper()
	before := list(t, dir)
	c := exec.CommandContext(t.Context(), shell)
	c.Dir, c.Stdin = dir, strings.NewReader(command)
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v: %.300q\n%.1000q", err, out, command)
	}
	if after := list(t, dir); len(after) != len(before) {
		t.Errorf("it made files: %q", after)
	}
}

// showable fails if a terminal would act on something in the text.
func showable(t *testing.T, text string) {
	t.Helper()
	if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); i >= 0 || !utf8.ValidString(text) {
		t.Errorf("a terminal would act on %.300q", text[max(0, i):])
	}
}

// object is a JSON object of just n bytes.
func object(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }

// The printed command is run by shells: what arrives is the delivered form, byte
// for byte, and its signature holds.
func TestEventCurlPrintsACommandThatWorks(t *testing.T) {
	s, acme, _ := service(t)
	environ := []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=" + s.Token}
	secret := webhook.NewSecret()
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	events := []client.Event{
		{ID: "mine", Data: []byte("{\r\n \"who\": \"it's $HOME `x` \\\\ @file\", \"n\": 1152921504606846977\n}")},
		{ID: "-o", Data: []byte(`{}`)},
		{ID: "--config", Data: []byte(object(128<<10 - 1))},
		{ID: "most", Data: []byte(object(256<<10 - len(`{"id":"most","type":"cases.closed","timestamp":"2026-04-29T09:10:00.123Z","data":}`)))},
		{ID: "quotes", Data: []byte(`{"a":"` + strings.Repeat("'", 200<<10) + `"}`)},
		{ID: "lines", Data: []byte("{" + strings.Repeat("\n\t", 100<<10) + "}")},
		{ID: "del", Data: []byte(`{"a":"` + strings.Repeat("\x7f", 100<<10) + `"}`)},
		{ID: "c1", Data: []byte("{\"a\":\"\u009b31m\u0090\u0085\"}")},
		{ID: "bidi", Data: []byte("{\"a\":\"\u202eabc\u2066\u200f\u061c\u2028\"}")},
		{ID: "end", Data: []byte(`{"a":"EOF\nEOF","b":"$(touch a)","c":"'; touch b; '","d":"%s%n\\c\\0101"}`)},
	}
	for i := range events {
		events[i].Type = "cases.closed"
		if _, err := acme.Send(t.Context(), events[i]); err != nil {
			t.Fatal(err)
		}
	}
	shells(t, func(t *testing.T, shell string) {
		h := newHook(t)
		for _, e := range events {
			code, command, talk := run(t, environ, "event", "curl", "--to", h.URL, "--secret-file", file, "--", e.ID)
			if code != 0 {
				t.Fatalf("it exits with %d: %s", code, talk)
			}
			if strings.Contains(command, secret) || strings.Contains(command, s.Token) {
				t.Error("the command has the secret in it")
			}
			showable(t, command)
			runsInShell(t, shell, t.TempDir(), command)
			got := h.bodies(e.ID)
			if len(got) != 1 || !strings.HasSuffix(got[0], `,"data":`+string(e.Data)+`}`) || !strings.HasPrefix(got[0], `{"id":"`+e.ID+`","type":"cases.closed","timestamp":"`) {
				t.Fatalf("%.1000q", got)
			}
			if err := verifier.Verify(h.header(), []byte(got[0])); err != nil {
				t.Error(err)
			}
		}
	})
	if code, _, _ := run(t, environ, "event", "curl", "nobody", "--to", "http://localhost"); code != 3 {
		t.Errorf("an unknown event: exit %d", code)
	}
	if code, _, _ := run(t, environ, "event", "curl", "mine"); code != 2 {
		t.Errorf("without --to: exit %d", code)
	}
}

// What a server answers is not trusted: its event is one request, or none.
func TestEventCurlTrustsNoServer(t *testing.T) {
	type event struct {
		id, eventType string
		refused       bool
	}
	events := []event{
		{id: "it's"}, {id: "$(touch a)"}, {id: "`touch b`"}, {id: "-o"}, {id: "@/etc/passwd"}, {id: "'; touch c; '"}, {id: "!!"},
		{id: "\u202egnp"}, {id: "\u009b31m"}, {id: "漢"}, {eventType: "$(touch d)"}, {eventType: "\u2066it's"}, {eventType: "--config"},
		{id: "a\r\nX-Other: 1", refused: true}, {id: "a\nX-Other: 1", refused: true}, {id: "\x1b]0;title\x07", refused: true}, {id: "a\x00b", refused: true},
		{id: "\x7f", refused: true}, {id: " a", refused: true}, {id: "a\t", refused: true}, {id: `","data":{},"x":"`, refused: true}, {id: `\`, refused: true},
		{eventType: "a\r\nX-Other: 1", refused: true}, {eventType: "\x1b[31m", refused: true}, {eventType: `"`, refused: true}, {eventType: "a ", refused: true},
	}
	shells(t, func(t *testing.T, shell string) {
		for _, e := range events {
			id, eventType := e.id, e.eventType
			if id == "" {
				id = "mine"
			}
			if eventType == "" {
				eventType = "cases.closed"
			}
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "application/json")
				json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{
					"id": id, "type": eventType, "timestamp": "2026-04-29T09:10:00Z", "data": map[string]any{},
				}})
			}))
			h := newHook(t)
			code, command, talk := run(t, []string{"POSTHORN_SERVER=" + s.URL, "POSTHORN_TOKEN=pht_x"}, "event", "curl", "mine", "--to", h.URL)
			s.Close()
			showable(t, command+talk)
			if e.refused {
				if code != cli.ExitFailed || command != "" {
					t.Errorf("%q, %q: exit %d, %s%s", id, eventType, code, command, talk)
				}
				continue
			}
			if code != 0 {
				t.Errorf("%q, %q: exit %d: %s", id, eventType, code, talk)
				continue
			}
			runsInShell(t, shell, t.TempDir(), command)
			head := h.header()
			if n := len(h.bodies(id)); n != 1 || head.Get("posthorn-event-type") != eventType {
				t.Errorf("%q, %q: %d requests, %q", id, eventType, n, head)
			}
			if n := len(head); n != 10 { // eight of a delivery, Accept, Content-Length
				t.Errorf("%d headers: %q", n, head)
			}
		}
	})
}

// sign --curl is given a URL and a file's name; it prints one request, or none.
func TestSignCurlPrintsOneRequest(t *testing.T) {
	secret := webhook.NewSecret()
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sign := func(body, id, to string) (code int, stdout, talk string) {
		return run(t, nil, "sign", "--secret-file", file, "--body="+body, "--id="+id, "--curl="+to)
	}
	files := []string{"body.json", "it's", "$(touch a)", "`touch b`", "-o", "@x", "\x1b[31mred", "\u202egnp", "a\nb", "\x9b", "漢 字"}
	shells(t, func(t *testing.T, shell string) {
		h := newHook(t)
		for _, name := range files {
			for _, more := range []string{"", "/it's", "?a=$(touch${IFS}c)&b", "/{x,y}/[1-3]", "/`touch${IFS}d`"} {
				dir := t.TempDir()
				body := object(300<<10) + "\r\n"
				if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
					t.Fatal(err)
				}
				id := "-" + filepath.Base(dir) + filepath.Base(t.TempDir())
				code, command, talk := sign(filepath.Join(dir, name), id, h.URL+more)
				if code != 0 {
					t.Fatalf("%q: exit %d: %s", name, code, talk)
				}
				showable(t, command)
				before := len(h.bodies(id))
				runsInShell(t, shell, dir, command)
				got := h.bodies(id)
				if len(got) != before+1 || got[before] != body {
					t.Fatalf("%q: %d requests", name, len(got)-before)
				}
				if err := verifier.Verify(h.header(), []byte(body)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	body := filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(body, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"-o/tmp/x", "--config=x", "@urls", "file:///etc/passwd", "http://localhost/\x1b[31m", "http://localhost/\nX-Other: 1", "http://localhost/ -o x", "http://localhost/\x9b", "http://"} {
		if code, out, talk := sign(body, "a", to); code != cli.ExitUsage || out != "" || !strings.Contains(talk, "--curl") {
			t.Errorf("%q: exit %d: %s%s", to, code, out, talk)
		} else {
			showable(t, talk)
		}
	}
	for _, id := range []string{"it's", "a\r\nX-Other: 1", "\x1b[31m", "$(touch a)", "`touch a`", "@x", "\u202ea", "a.b"} {
		code, out, talk := sign(body, id, "http://localhost/")
		if code != cli.ExitUsage || out != "" {
			t.Errorf("%q: exit %d: %s", id, code, out)
		}
		showable(t, talk)
	}
}
