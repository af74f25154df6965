package cli_test

import (
	"bytes"
	"context"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// run runs a command line within the test.
func run(t *testing.T, environ []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, talk bytes.Buffer
	code = cli.Run(t.Context(), args, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &talk, Environ: environ}, programs())
	return code, out.String(), talk.String()
}

func TestDocumentation(t *testing.T) {
	upToDate(t, "docs/cli.md", cli.Markdown())
}

// upToDate holds a page that is written by its test, or writes it with -update.
func upToDate(t *testing.T, page, want string) {
	t.Helper()
	path := filepath.Join("../..", filepath.FromSlash(page))
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b), want); diff != "" {
		t.Errorf("%s is out of date; \"go test ./internal/cli -update\" writes it\n%s", page, diff)
	}
}

// TestEveryCommandsHelpBeginsWithAnExample walks the help itself, so that a new
// command is tested too.
func TestEveryCommandsHelpBeginsWithAnExample(t *testing.T) {
	seen := 0
	var walk func(path []string)
	walk = func(path []string) {
		code, out, _ := run(t, nil, append(path, "--help")...)
		name := strings.Join(append([]string{"posthorn"}, path...), " ")
		first, second, _ := strings.Cut(out, "\n")
		if code != 0 || first != "Example:" || !strings.Contains(strings.SplitN(second, "\n\n", 2)[0], name) {
			t.Errorf("the help of %q begins with %q and no example of itself", name, first)
		}
		seen++
		inCommands := false
		for line := range strings.SplitSeq(out, "\n") {
			switch {
			case strings.HasSuffix(line, ":"):
				inCommands = line != "Example:" && line != "Usage:" && !strings.HasSuffix(line, "lags:")
			case inCommands && strings.HasPrefix(line, "  ") && line[2] != ' ':
				sub := strings.Fields(line)[0]
				if sub != "help" && sub != "completion" { // cobra's own
					walk(append(append([]string{}, path...), sub))
				}
			}
		}
	}
	walk(nil)
	if seen < 35 {
		t.Errorf("only %d commands were found", seen)
	}
}

func TestAnotherUsersStoreIsLeftAlone(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Skip("there is no user nobody")
	}
	path := filepath.Join(t.TempDir(), "posthorn.db")
	if _, _, err := sqlite.Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	before := list(t, filepath.Dir(path))
	if err := os.Chown(path, atoi(t, nobody.Uid), -1); err != nil {
		t.Fatal(err)
	}
	code, out, talk := run(t, nil, "token", "create", "--tenant", "acme", "--store", "sqlite:"+path)
	if code != cli.ExitNotAllowed || out != "" {
		t.Errorf("it exits with %d and prints %q", code, out)
	}
	if want := "sudo -u nobody posthorn token create … --store sqlite:" + path; !strings.Contains(talk, want) {
		t.Errorf("the way out is not shown: %s", talk)
	}
	if diff := cmp.Diff(before, list(t, filepath.Dir(path))); diff != "" {
		t.Errorf("files were left beside the store: %s", diff)
	}
}

func list(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	for _, c := range s {
		n = n*10 + int(c-'0')
	}
	return n
}

// TestTwoProcessesWorkOnOneStore is a token made while the service runs.
func TestTwoProcessesWorkOnOneStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	serving, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Synchronous: "OFF"})
	if err != nil {
		t.Fatal(err)
	}
	defer serving.Close()
	code, out, talk := run(t, nil, "token", "create", "--tenant", "acme", "--store", "sqlite:"+path)
	if code != 0 || !strings.HasPrefix(out, "pht_") {
		t.Fatalf("it exits with %d: %s", code, talk)
	}
	if _, err := serving.TenantByName(t.Context(), "acme"); err != nil {
		t.Errorf("the service does not see the tenant: %v", err)
	}
	code, _, talk = run(t, nil, "migrate", "--store", "sqlite:"+path)
	if code == 0 || !strings.Contains(talk, "in use by process") {
		t.Errorf("migrate beside the service exits with %d: %s", code, talk)
	}
}

func TestAnInterruptIsNoFailureOfTheServer(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, talk bytes.Buffer
	code := cli.Run(ctx, []string{"endpoint", "list"}, cli.Streams{In: strings.NewReader(""), Out: &out, Err: &talk,
		Environ: []string{"POSTHORN_TOKEN=x"}}, programs())
	if code != cli.ExitInterrupted || !strings.Contains(talk.String(), "Interrupted") {
		t.Errorf("it exits with %d: %s", code, talk.String())
	}
}

func TestATokenInTheClearIsWarnedOf(t *testing.T) {
	for server, want := range map[string]bool{
		"http://127.0.0.1:1": false, "http://[::1]:1": false, "http://localhost:1": false, "https://hooks.invalid": false,
		"http://hooks.invalid": true, "http://192.0.2.1:1": true,
	} {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // no request shall be made
		var talk bytes.Buffer
		cli.Run(ctx, []string{"endpoint", "list", "--server", server, "--token", "x"},
			cli.Streams{In: strings.NewReader(""), Out: &talk, Err: &talk}, programs())
		if got := strings.Contains(talk.String(), "unencrypted"); got != want {
			t.Errorf("%s: warned %t: %s", server, got, talk.String())
		}
	}
}
