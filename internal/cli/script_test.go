package cli_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/posthorn/posthorn/internal/app"
	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/secretbox"
)

var update = flag.Bool("update", false, "write what scripts and tests compare with")

// TestMain makes the test binary the program "posthorn" where scripts run it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"posthorn": func() { os.Exit(cli.Run(context.Background(), os.Args[1:], cli.System(), programs())) },
	})
}

// programs are those of the real thing but the two that run for ever: they print
// what they would run with.
func programs() cli.Programs {
	return cli.Programs{
		Serve: func(_ context.Context, cfg config.Config, stdout, _ io.Writer) error {
			_, err := fmt.Fprint(stdout, cfg.String())
			return err
		},
		Dev: func(_ context.Context, cfg config.Dev, stdout, _ io.Writer) error {
			_, err := fmt.Fprintf(stdout, "dir: %s\nsamples: %s\nreset: %t\n%s", cfg.Dir, cfg.Samples, cfg.Reset, cfg.String())
			return err
		},
		OpenStore: func(ctx context.Context, path string) (cli.Store, error) { return app.OpenStore(ctx, path) },
		Migrate:   app.Migrate, RotateKeys: app.RotateKeys, Diagnose: app.Diagnose,
	}
}

// TestScripts runs testdata/script. Each script has a service of its own in
// POSTHORN_SERVER, which POSTHORN_TOKEN opens for the tenant acme, a receiver in
// RECEIVER, and in GOOD_RECEIVER one that verifies with GOOD_SECRET. SERVED_STORE and
// SERVED_KEYS are what the service runs with.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(env *testscript.Env) error {
			s, err := startServer(t.TempDir())
			if err != nil {
				return err
			}
			env.Defer(func() {
				if err := s.close(); err != nil {
					t.Error(err)
				}
			})
			env.Setenv("POSTHORN_SERVER", s.URL)
			env.Setenv("POSTHORN_TOKEN", s.Token)
			env.Setenv("ADMIN_TOKEN", s.Admin)
			env.Setenv("RECEIVER", s.Receiver)
			env.Setenv("SERVED_STORE", s.Store)
			env.Setenv("SERVED_KEYS", s.Keys)
			env.Setenv("SERVED_LISTEN", strings.TrimPrefix(s.URL, "http://"))
			_, other, _ := strings.Cut(secretbox.Generate("x"), ":")
			env.Setenv("OTHER_KEY", other)
			env.Setenv("GOOD_RECEIVER", s.Good)
			env.Setenv("GOOD_SECRET", s.GoodSecret)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "keep": keep,
		},
	})
}

// exits runs a program and wants an exit code: exits 3 posthorn endpoint get x.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("it exits with %d, not %d", got, want)
	}
}

// keep puts the last output's first word into a variable: keep ID.
func keep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: keep NAME")
	}
	var word string
	if _, err := fmt.Sscan(ts.ReadFile("stdout"), &word); err != nil {
		ts.Fatalf("nothing to keep: %v", err)
	}
	ts.Setenv(args[0], word)
}
