package bench_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/bench"
	// The binary is built by a process of its own, which the test cache does not
	// see: importing what is in it makes a changed binary a changed test.
	_ "github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestRunMeasuresTheRealBinary: a short load with one endpoint of each kind
// loses nothing and fills every figure. It holds no figure to a bar.
func TestRunMeasuresTheRealBinary(t *testing.T) {
	binary, err := proof.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Run("command", func(t *testing.T) {
		t.Parallel()
		plot := filepath.Join(t.TempDir(), "plot.svg")
		out, err := exec.CommandContext(t.Context(), binary, "bench", "--duration", "1s", "--conns", "4", "--dir", t.TempDir(), "--plot", plot, "-o", "json").Output()
		if err != nil {
			t.Fatal(err)
		}
		var r bench.Report
		if err := json.Unmarshal(out, &r, json.RejectUnknownMembers(true)); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		if r.Accepted == 0 || r.Lost != 0 || r.Raw.PerSecond == 0 || r.Relay.PerSecond == 0 || r.Config.Conns != 4 {
			t.Errorf("%s", out)
		}
		if picture, err := os.ReadFile(plot); err != nil || !bytes.HasPrefix(picture, []byte("<svg")) {
			t.Errorf("--plot: %.100s, %v", picture, err)
		}
		err = exec.CommandContext(t.Context(), binary, "bench", "--endpoints", "1", "--hang", "1").Run()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 2 {
			t.Errorf("a load with no endpoint that answers: %v, want exit code 2", err)
		}
	})
	for name, set := range map[string]func(*bench.Config){
		"closed loop":                     func(c *bench.Config) {},
		"open loop, one hangs, one fails": func(c *bench.Config) { c.Rate, c.Endpoints, c.Hang, c.Fail = 300, 3, 1, 1 },
		"batches as lines, two tenants":   func(c *bench.Config) { c.Batch, c.NDJSON, c.Conns, c.Endpoints, c.Tenants = 50, true, 2, 4, 2 },
		"fan-out beside a backlog":        func(c *bench.Config) { c.Endpoints, c.FanOut, c.Backlog = 10, 5, 2000 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := bench.Default()
			c.Binary, c.Dir, c.Conns, c.Duration, c.Relay, c.Raw = binary, t.TempDir(), 8, 1200*time.Millisecond, false, false
			set(&c)
			r, err := bench.Run(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			r.Print(&out)
			t.Logf("\n%s", &out)
			if r.Accepted == 0 || r.Lost != 0 || r.Duplicates != 0 {
				t.Errorf("accepted %d, lost %d, duplicates %d", r.Accepted, r.Lost, r.Duplicates)
			}
			if r.Publish.P50 <= 0 || r.Receipt.P50 <= 0 || r.DeliveredPerSecond <= 0 {
				t.Errorf("figures are missing: %+v", r)
			}
			if _, err := os.Stat("/proc/self/io"); err == nil && (r.PeakAnon <= 0 || r.WrittenKiB <= 0) {
				t.Errorf("memory %v MiB, written %v KiB", r.PeakAnon, r.WrittenKiB)
			}
		})
	}
	t.Run("two nodes on PostgreSQL", func(t *testing.T) {
		t.Parallel()
		pgtest.Missing(t)
		db, err := pgtest.Start("shared_preload_libraries=pg_stat_statements")
		if err != nil {
			t.Fatal(err)
		}
		defer db.Stop()
		c := bench.Default()
		c.Binary, c.Conns, c.Duration, c.Relay, c.Raw = binary, 8, 1200*time.Millisecond, false, false
		c.Store, c.Nodes = db.URL(), 2
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Accepted == 0 || r.Lost+r.Duplicates != 0 {
			t.Fatalf("accepted %d, lost %d, duplicates %d, %v", r.Accepted, r.Lost, r.Duplicates, err)
		}
		if d := r.Database; d == nil || d.WAL < 1024 || d.Publishes == 0 || d.Results == 0 || d.PerResult < 2 || d.PerResult > 2.2 {
			t.Errorf("it cost the database %+v", d)
		}
		conn, err := pgx.Connect(t.Context(), db.URL())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		var left int
		if err := conn.QueryRow(t.Context(), `SELECT count(*) FROM pg_database WHERE datname LIKE 'posthorn%'`).Scan(&left); err != nil || left != 0 {
			t.Errorf("%d databases are left, %v", left, err)
		}
	})
	t.Run("a node that runs", func(t *testing.T) {
		t.Parallel()
		server, err := proof.Start(t.Context(), proof.Options{Binary: binary, Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		defer server.Kill()
		c := bench.Default()
		c.Conns, c.Duration, c.Relay, c.Raw, c.Server = 4, 1200*time.Millisecond, false, false, server.URL()
		if c.Token, err = server.Token(t.Context(), "acme", "webhooks:read", "webhooks:write", "events:publish"); err != nil {
			t.Fatal(err)
		}
		r, err := bench.Run(t.Context(), c)
		if err != nil || r.Accepted == 0 || r.Lost+r.Duplicates != 0 {
			t.Errorf("accepted %d, lost %d, duplicates %d, %v", r.Accepted, r.Lost, r.Duplicates, err)
		}
		var left []proof.Endpoint
		api := proof.API{URL: c.Server, Token: c.Token}
		if err := api.Call(t.Context(), "GET", "/endpoints", nil, &left); err != nil || len(left) != 0 {
			t.Errorf("%d endpoints are left, %v", len(left), err)
		}
	})
}
