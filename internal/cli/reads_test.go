package cli_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
)

// world is a service with one of everything in it, for commands that read.
type world struct {
	*server
	dir                               string
	endpoint, event, delivery, replay string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, acme, _ := service(t)
	w := &world{server: s, dir: t.TempDir(), event: "e-1"}
	ctx := t.Context()
	e, err := acme.CreateEndpoint(ctx, client.NewEndpoint{URL: s.Receiver + "/fail", Events: []string{"cases.*"}})
	if err != nil {
		t.Fatal(err)
	}
	w.endpoint = e.ID
	for i := range 3 {
		if _, err := acme.Send(ctx, client.Event{ID: fmt.Sprint("e-", i), Type: "cases.updated", Data: []byte(`{"escape":"\u001b[31m"}`)}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "attempts", func() bool {
		made := 0
		for d, err := range acme.Deliveries(ctx, client.DeliveryFilter{}) {
			if err != nil {
				t.Fatal(err)
			}
			if w.delivery = d.ID; d.AttemptsMade > 0 {
				made++
			}
		}
		return made == 3
	})
	r, err := acme.CreateReplay(ctx, e.ID, client.NewReplay{Since: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w.replay = r.ID
	for name, text := range map[string]string{"body.json": "{}", "secret.txt": s.GoodSecret, "token": s.Token} {
		if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if code, out, talk := run(t, nil, "sign", "--secret-file", w.file("secret.txt"), "--body", w.file("body.json")); code != 0 {
		t.Fatal(talk)
	} else if err := os.WriteFile(w.file("headers.txt"), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, talk := run(t, w.environ(), "context", "add", "local", "--server", s.URL); code != 0 {
		t.Fatal(talk)
	}
	return w
}

func (w *world) file(name string) string { return filepath.Join(w.dir, name) }

func (w *world) environ() []string {
	return []string{"POSTHORN_SERVER=" + w.URL, "POSTHORN_TOKEN=" + w.Token, "POSTHORN_STORE=sqlite:" + w.Store, "HOME=" + w.dir,
		"POSTHORN_ENCRYPTION_KEYS=" + w.Keys, "PATH=" + os.Getenv("PATH")}
}

// reads are the commands that print what is there, each with arguments that work.
func (w *world) reads() map[string][]string {
	return map[string][]string{
		"endpoint list": {}, "endpoint get": {w.endpoint}, "endpoint health": {w.endpoint}, "endpoint stats": {w.endpoint},
		"endpoint secret reveal": {w.endpoint}, "endpoint settings get": {w.endpoint},
		"event list": {}, "event get": {w.event}, "event-type list": {}, "event-type get": {"cases.updated"},
		"delivery list": {}, "delivery get": {w.delivery}, "replay list": {}, "replay get": {w.replay},
		"audit list": {}, "context list": {}, "tenant list": {}, "tenant deletions": {}, "token list": {},
		"outbox list": {"--token", w.Admin}, "version": {}, "doctor": {"--resolve", "localhost"}, "config check": {},
		"endpoint settings test-filter": {w.endpoint, "true"}, "key generate": {},
		"check": {w.Good, "--secret-file", w.file("secret.txt")}, "sign": {"--secret-file", w.file("secret.txt"), "--body", w.file("body.json")},
		"verify": {"--secret-file", w.file("secret.txt"), "--headers", w.file("headers.txt"), "--body", w.file("body.json")},
	}
}

// notReads are all others: what changes something, runs on, or prints a text whose
// form is not ours.
var notReads = []string{
	"endpoint create", "endpoint update", "endpoint pause", "endpoint resume", "endpoint delete", "endpoint test", "endpoint cancel-pending",
	"endpoint secret rotate", "endpoint settings set", "event send", "event resend", "event cancel", "event erase", "trigger",
	"delivery retry", "delivery cancel", "replay create", "replay pause", "replay resume", "replay cancel", "sending pause", "sending resume",
	"outbox retry", "outbox drop", "tenant create", "tenant delete", "tenant suspend", "tenant resume", "token create", "token delete",
	"context add", "context use", "context remove", "key rotate", "store backup", "store restore", "store copy", "migrate",
	"serve", "dev", "bench", "bench relay", "listen", "event tail", // they run on
	"event curl", "export", // a command for the shell; lines of JSON always
	"completion bash", "completion zsh", "completion fish", "completion powershell",
}

// Every command is either known to read, and then held to what follows, or not.
func TestEveryCommandIsKnownToReadOrNot(t *testing.T) {
	reads := (&world{server: &server{}}).reads()
	for _, c := range cli.Commands() {
		name := strings.TrimPrefix(c.Path, "posthorn ")
		_, isRead := reads[name]
		if isRead == slices.Contains(notReads, name) {
			t.Errorf("%s must be in one of reads and notReads", name)
		}
	}
}

// With -o json a command prints one document, with -o jsonl one on each line, of the
// same content; talk stays out of it.
func TestReadsPrintJSON(t *testing.T) {
	w := newWorld(t)
	for name, args := range w.reads() {
		args = append(strings.Fields(name), args...)
		code, out, talk := run(t, w.environ(), append(args, "-o", "json")...)
		var document any
		if err := json.Unmarshal([]byte(out), &document); err != nil || code != 0 {
			t.Errorf("%s -o json exits with %d: %v\n%s%s", name, code, err, out, talk)
			continue
		}
		code, out, talk = run(t, w.environ(), append(args, "-o", "jsonl")...)
		lines, items := 0, 1
		if list, ok := document.([]any); ok {
			items = len(list)
		}
		for line := range strings.Lines(out) {
			if lines++; !json.Valid([]byte(line)) || !strings.HasSuffix(line, "\n") {
				t.Errorf("%s -o jsonl prints %q", name, line)
			}
		}
		if grows := name == "audit list" || name == "token list"; code != 0 || lines != items && !grows {
			t.Errorf("%s -o jsonl exits with %d and prints %d lines of %d: %s", name, code, lines, items, talk)
		}
		if strings.HasSuffix(name, " list") && name != "outbox list" && items == 0 {
			t.Errorf("%s has nothing to print, so this shows nothing", name)
		}
	}
}

// Each exit code of the table, with its name in the error that -o json prints.
func TestExitCodesAreThoseOfTheTable(t *testing.T) {
	w := newWorld(t)
	seen := map[int]bool{cli.ExitInterrupted: true} // TestAnInterruptIsNoFailureOfTheServer
	for _, tc := range []struct {
		code int
		args string
		more []string
	}{
		{cli.ExitDone, "endpoint list", nil},
		{cli.ExitFailed, "export --file " + w.file("token"), nil},
		{cli.ExitUsage, "endpoint get", nil},
		{cli.ExitUsage, "endpoint create --url nonsense --events cases.*", nil},
		{cli.ExitNotFound, "endpoint get wh_none", nil},
		{cli.ExitNotFound, "tenant list --store sqlite:" + w.file("none.db"), nil},
		{cli.ExitNotAllowed, "endpoint list", []string{"POSTHORN_TOKEN=pht_wrong"}},
		{cli.ExitNotAllowed, "sending pause", nil},
		{cli.ExitConflict, "event send cases.updated --id e-1 --data {}", nil},
		{cli.ExitConflict, "tenant create acme", nil},
		{cli.ExitTestFailed, "event send cases.updated --wait", nil},
		{cli.ExitTestFailed, "endpoint test " + w.endpoint, nil},
		{cli.ExitTestFailed, "check " + w.Receiver + "/fail --secret-file " + w.file("secret.txt"), nil},
		{cli.ExitTestFailed, "verify --secret-file " + w.file("secret.txt") + " --headers " + w.file("headers.txt") + " --body " + w.file("token"), nil},
		{cli.ExitUnreachable, "endpoint list", []string{"POSTHORN_SERVER=http://127.0.0.1:1"}},
		{cli.ExitUnreachable, "listen --forward-to http://127.0.0.1:9", []string{"POSTHORN_SERVER=http://127.0.0.1:1"}},
	} {
		code, _, talk := run(t, append(w.environ(), tc.more...), append(strings.Fields(tc.args), "-o", "json")...)
		seen[code] = true
		if code != tc.code {
			t.Errorf("%s exits with %d, not %d: %s", tc.args, code, tc.code, talk)
			continue
		}
		if code == cli.ExitDone {
			continue
		}
		lines := strings.Split(strings.TrimSpace(talk), "\n")
		var told struct {
			Error struct{ Code, Message string }
		}
		if err := json.Unmarshal([]byte(lines[len(lines)-1]), &told); err != nil || told.Error.Message == "" {
			t.Errorf("%s: the error is no JSON: %s", tc.args, talk)
		}
		for _, c := range cli.Codes() {
			if c.Code == code && c.Name != told.Error.Code {
				t.Errorf("%s: %d is called %q", tc.args, code, told.Error.Code)
			}
		}
	}
	for _, c := range cli.Codes() {
		if !seen[c.Code] {
			t.Errorf("nothing here exits with %d, %s", c.Code, c.Name)
		}
	}
}

// The real program, its output to a pipe whose reader leaves: no word of it.
func TestReadersThatLeaveEarlyAreNoError(t *testing.T) {
	needs(t, "bash") // for PIPESTATUS
	binary, err := proof.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	for name, args := range w.reads() {
		for _, lines := range []int{0, 1} {
			args := append(append([]string{"-c", fmt.Sprintf(`"$@" | head -n %d; exit ${PIPESTATUS[0]}`, lines), "bash", binary}, strings.Fields(name)...), args...)
			c := exec.CommandContext(t.Context(), "bash", args...)
			var talk strings.Builder
			c.Env, c.Stdout, c.Stderr = w.environ(), io.Discard, &talk
			err := c.Run()
			const sigpipe = 128 + 13
			if code := c.ProcessState.ExitCode(); code != 0 && code != sigpipe {
				t.Errorf("%s | head -n %d: %v: %s", name, lines, err, talk.String())
			}
			if s := strings.ToLower(talk.String()); strings.Contains(s, "pipe") || strings.Contains(s, "error") {
				t.Errorf("%s | head -n %d says: %s", name, lines, talk.String())
			}
		}
	}
}

// On a real terminal with NO_COLOR, and on a dumb one, there are no escape codes, of
// ours or of what others wrote; without them there are.
func TestTerminalsThatWantNoColourGetNone(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("other systems' script takes other arguments")
	}
	needs(t, "script") // for a terminal
	binary, err := proof.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	onTerminal := func(args []string, environ ...string) string {
		words := []string{binary}
		for _, a := range args {
			words = append(words, "'"+a+"'")
		}
		c := exec.CommandContext(t.Context(), "script", "-qec", strings.Join(words, " "), os.DevNull)
		c.Env = append(w.environ(), environ...)
		out, _ := c.Output() // its exit code is seen elsewhere
		return string(out)
	}
	reads := w.reads()
	reads["replay get"] = append(reads["replay get"], "--wait") // with a progress bar
	painted := 0
	for name, args := range reads {
		args = append(strings.Fields(name), args...)
		if strings.Contains(onTerminal(args, "TERM=xterm"), "\x1b[") {
			painted++
		}
		for _, environ := range [][]string{{"TERM=xterm", "NO_COLOR=1"}, {"TERM=dumb"}} {
			out := onTerminal(args, environ...)
			if strings.ContainsRune(out, '\x1b') {
				t.Errorf("%s with %v prints %q", name, environ, out)
			}
			if out == "" {
				t.Errorf("%s with %v prints nothing", name, environ)
			}
		}
		if _, out, talk := run(t, append(w.environ(), "TERM=xterm"), args...); strings.ContainsRune(out+talk, '\x1b') {
			t.Errorf("%s prints escape codes into a pipe: %q", name, out+talk)
		}
	}
	if painted < 10 {
		t.Errorf("only %d commands use colour, so this shows little", painted)
	}
}
