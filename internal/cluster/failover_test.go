package cluster

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// TestAFailoverToAStandbyLosesNothing kills the database under load and promotes
// its synchronous standby. One node follows the name, which then leads to the
// other server; the other one has both in its address and looks for the one that
// can be written to.
func TestAFailoverToAStandbyLosesNothing(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 2*time.Minute, fmt.Errorf("the run took longer than two minutes"))
	defer cancel()
	primary := pgtest.ThrowAway(t)
	standby, err := primary.Standby("cluster_name=standby")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := standby.Stop(); err != nil {
			t.Error(err)
		}
	})
	admin, err := pgx.Connect(ctx, primary.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.WithoutCancel(ctx))
	// A commit is answered when the standby has it too.
	for _, query := range []string{`ALTER SYSTEM SET synchronous_standby_names = '*'`, `SELECT pg_reload_conf()`} {
		if _, err := admin.Exec(ctx, query); err != nil {
			t.Fatal(err)
		}
	}
	err = proof.Until(ctx, 20*time.Millisecond, func() (is bool, err error) {
		return is, admin.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync')`).Scan(&is)
	})
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(ctx, t, primary, 1)
	other := ill.New(t, standby.Dir())
	both := strings.Replace(w.wires[0].TCP("postgres"), w.wires[0].Addr(), w.wires[0].Addr()+","+other.Addr(), 1) + "&target_session_attrs=read-write"
	w.join(both)
	p := w.startLoad(ctx, *rate)
	w.accepting(p, 300)
	end := w.ledger.begin(all, "failover")
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	// The nodes notice, and say so.
	for node := range w.nodes {
		err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
			code, _ := w.readyz(node)
			return code == http.StatusServiceUnavailable, nil
		})
		if err != nil {
			t.Fatalf("node %d is ready without a database: %v", node, err)
		}
	}
	if err := standby.Promote(ctx); err != nil {
		t.Fatal(err)
	}
	w.db = standby
	w.wires[0].Lead(standby.Dir())
	for node := range w.nodes {
		w.ready(node)
	}
	end()
	w.accepting(p, 300)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.settle(40 * time.Second)
	s := w.judge(p)
	tally.Count(t, promise, s.deliveries)
}
