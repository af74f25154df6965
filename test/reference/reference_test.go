package reference

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"

	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(proof.WithBinary(&binary, m.Run))
}

// serve starts the service with the given further flags and returns its API as
// a partner's token reaches it.
func serve(t *testing.T, args ...string) proof.API {
	t.Helper()
	s, err := proof.Start(t.Context(), proof.Options{Binary: binary, Dir: t.TempDir(), Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code, err := s.Stop(10 * time.Second); err != nil || code != 0 {
			t.Errorf("posthorn serve ended with code %d, %v after SIGTERM\n%s", code, err, s.LogTail())
		}
	})
	token, err := s.Token(t.Context(), "xpath", "webhooks:read", "webhooks:write", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	return proof.API{URL: s.URL(), Token: token}
}

// TestCurlExamples runs every example of the reference as it stands, with only
// the placeholders filled in, in the order of an endpoint's life.
func TestCurlExamples(t *testing.T) {
	curl := newCurl(t)
	api := serve(t)
	tally.Count(t, "the reference's curl lines answer as the reference shows", len(examples(t)))
	byMethod := make(map[string]example)
	for _, e := range examples(t) {
		byMethod[e.operation] = e
	}
	var webhookID string
	run := func(operation string, change ...string) answer {
		t.Helper()
		return curl.run(t, strings.NewReplacer(append(change,
			"{{BASE_URL}}", api.URL, "{{ACCESS_TOKEN}}", api.Token, "{{WEBHOOK_ID}}", webhookID)...).Replace(byMethod[operation].curl))
	}
	check := func(operation string) answer {
		t.Helper()
		e, got := byMethod[operation], run(operation)
		if got.status != e.status {
			t.Fatalf("%s: status %d, the reference says %d\n%s", operation, got.status, e.status, got.body)
		}
		if operation != remove {
			if diff := cmp.Diff(masked(t, e.body), masked(t, got.body)); diff != "" {
				t.Errorf("%s: the answer differs (-reference +got):\n%s", operation, diff)
			}
		}
		return got
	}

	created := decode[struct{ Data endpoint }](t, check(create).body).Data
	webhookID = created.ID
	if created.CreatedAt != created.UpdatedAt {
		t.Errorf("created at %s, updated at %s, want the same", created.CreatedAt, created.UpdatedAt)
	}
	check(list)
	if got := decode[struct{ Data endpoint }](t, check(get).body).Data; got.ID != created.ID || got.CreatedAt != created.CreatedAt {
		t.Errorf("get answers %+v, want what create answered: %+v", got, created)
	}
	check(update)
	// CONTRACT: HTTP allows no content on 204, so the reference's body comes to
	// those who ask for it.
	if got := check(remove); got.body != "" {
		t.Errorf("204 with content %q", got.body)
	}
	if got := run(remove); got.status != http.StatusNotFound {
		t.Errorf("a second DELETE: %d, want 404", got.status)
	}
	webhookID = decode[struct{ Data endpoint }](t, run(create).body).Data.ID
	got := run(remove, `-H "Accept`, `-H "Prefer: return=representation" -H "Accept`)
	if got.status != http.StatusOK || !strings.Contains(strings.ToLower(got.header), "preference-applied: return=representation") {
		t.Errorf("DELETE with Prefer: %d\n%s, want 200 and Preference-Applied", got.status, got.header)
	}
	if diff := cmp.Diff(masked(t, byMethod[remove].body), masked(t, got.body)); diff != "" {
		t.Errorf("DELETE with Prefer (-reference +got):\n%s", diff)
	}
}

const (
	list   = "GET /v2.3/webhooks/endpoints"
	create = "POST /v2.3/webhooks/endpoints"
	get    = "GET /v2.3/webhooks/endpoints/{webhookId}"
	update = "PATCH /v2.3/webhooks/endpoints/{webhookId}"
	remove = "DELETE /v2.3/webhooks/endpoints/{webhookId}"
)

type endpoint struct {
	ID        string `json:"id"`
	CreatedAt string `json:"created_at"`
	UpdatedAt string `json:"updated_at"`
}

// TestEveryEventTypeCanBeSubscribed takes the reference's list of types.
func TestEveryEventTypeCanBeSubscribed(t *testing.T) {
	api := serve(t)
	types := eventTypes(t)
	if _, err := api.CreateEndpoint(t.Context(), "https://partner.example.com/webhooks/xpath", "active", types...); err != nil {
		t.Errorf("%q: %v", types, err)
	}
	_, err := api.CreateEndpoint(t.Context(), "https://partner.example.com/webhooks/xpath", "active", "cases.reopened")
	if status, ok := errors.AsType[*proof.Status](err); !ok || status.Code != http.StatusUnprocessableEntity {
		t.Errorf("a type that is not in the catalogue: %v, want 422", err)
	}
}

// curlCommand is the curl program, told by a configuration file, so that the
// examples stay as they are, to show status and headers.
type curlCommand struct{ home string }

func newCurl(t *testing.T) curlCommand {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("POSTHORN_CI") != "" {
			t.Fatal("curl is needed to run the reference's examples; install it")
		}
		t.Skip("SKIPPED: the reference's examples need curl, which is not installed")
	}
	home := t.TempDir()
	rc := "silent\nshow-error\nmax-time = 10\ndump-header = \"" + filepath.Join(home, "header") + "\"\nnoproxy = \"*\"\n"
	if err := os.WriteFile(filepath.Join(home, ".curlrc"), []byte(rc), 0o600); err != nil {
		t.Fatal(err)
	}
	return curlCommand{home: home}
}

type answer struct {
	status int
	header string
	body   string
}

func (c curlCommand) run(t *testing.T, command string) answer {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", command)
	cmd.Env = append(os.Environ(), "CURL_HOME="+c.home, "HOME="+c.home, "XDG_CONFIG_HOME="+c.home)
	out, err := cmd.Output()
	if err != nil {
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			t.Fatalf("%s\n%v: %s", command, err, exit.Stderr)
		}
		t.Fatal(err)
	}
	header, err := os.ReadFile(filepath.Join(c.home, "header"))
	if err != nil {
		t.Fatal(err)
	}
	a := answer{header: string(header), body: string(out)}
	if _, err := fmt.Sscanf(a.header, "HTTP/1.1 %d", &a.status); err != nil {
		t.Fatalf("no status in %q", a.header)
	}
	return a
}

// What differs from run to run, each with the form that it must have.
var changing = []struct{ form, instead string }{
	{`^wh_[0-7][0-9A-HJKMNP-TV-Z]{25}$`, "<endpoint id>"},
	{`^whsec_(\.\.\.|[A-Za-z0-9+/]{43}=)$`, "<secret>"},
	{`^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ$`, "<time to the second>"},
}

// masked renders JSON with one token a line, keys in their order, and puts names
// in the place of what differs from run to run.
func masked(t *testing.T, text string) string {
	t.Helper()
	d := jsontext.NewDecoder(strings.NewReader(text))
	var b strings.Builder
	for {
		token, err := d.ReadToken()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatalf("%v in %s", err, text)
		}
		value := token.String()
		for _, c := range changing {
			if token.Kind() == '"' && regexp.MustCompile(c.form).MatchString(value) {
				value = c.instead
			}
		}
		fmt.Fprintf(&b, "%s%c %s\n", strings.Repeat("  ", d.StackDepth()), token.Kind(), value)
	}
}

func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v, json.MatchCaseInsensitiveNames(true)); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}

// receiver is a partner's server for the tests of deliveries: it keeps what
// came and answers what it is told.
func receiver(t *testing.T, handle http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(handle)
	t.Cleanup(s.Close)
	return s.URL + "/webhooks/xpath"
}
