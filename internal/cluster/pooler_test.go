package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// pooler starts PgBouncer in transaction mode before the database and returns
// where it listens.
func pooler(t *testing.T, w *world, settings string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		if program = "/usr/sbin/pgbouncer"; !exists(program) {
			if os.Getenv("POSTHORN_CI") != "" {
				t.Fatal("there is no pgbouncer, and CI must have one: apt-get install pgbouncer")
			}
			t.Skip("there is no pgbouncer (apt-get install pgbouncer): what a pooler does to a node is not tested")
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	ln.Close()
	dir, err := os.MkdirTemp("", "posthorn-pooler-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := fmt.Sprintf("[databases]\npostgres = host=%s\n[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port=%s\nunix_socket_dir=\nauth_type=any\npool_mode=transaction\n%s\n",
		w.db.Dir(), port, settings)
	// auth_type any needs one user for all.
	config = strings.Replace(config, "host="+w.db.Dir(), "host="+w.db.Dir()+" user=postgres", 1)
	if err := os.WriteFile(filepath.Join(dir, "pgbouncer.ini"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, filepath.Join(dir, "pgbouncer.ini"))
	if os.Getuid() == 0 { // which it refuses to run as
		nobody, err := user.Lookup("nobody")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(nobody.Uid)
		gid, _ := strconv.Atoi(nobody.Gid)
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	address := "postgres://postgres@127.0.0.1:" + port + "/postgres?sslmode=disable"
	err = proof.Until(w.ctx, 20*time.Millisecond, func() (bool, error) {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return address
}

func exists(file string) bool {
	_, err := os.Stat(file)
	return !errors.Is(err, os.ErrNotExist)
}

// TestAPoolerIsForProgramsAlone: a node that PgBouncer stands before says so and
// does not start, whatever that is told to overlook; posthorn.publish works
// through it.
func TestAPoolerIsForProgramsAlone(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 1)
	plain := pooler(t, w, "")
	for _, address := range []string{plain, pooler(t, w,
		"ignore_startup_parameters=search_path,application_name,statement_timeout,lock_timeout,idle_in_transaction_session_timeout")} {
		for _, args := range [][]string{{"serve", "--listen", "127.0.0.1:0", "--ops-listen", "off"}, {"migrate"}, {"tenant", "list"}} {
			cmd := exec.CommandContext(ctx, binary, append(args, "--store", address)...)
			cmd.Env = append(proof.Environ(), "POSTHORN_ENCRYPTION_KEYS="+w.nodes[0].Keys())
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "pooler such as PgBouncer stands before it") {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
	}
	config, err := pgxpool.ParseConfig(plain)
	if err != nil {
		t.Fatal(err)
	}
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol // no prepared statements, as PgBouncer asks
	db, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(db.Close)
	if _, err := db.Exec(ctx, `CREATE TABLE orders (n int PRIMARY KEY)`); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if err := w.order(ctx, db, n, n%2 == 0); err != nil {
			t.Fatal(err)
		}
	}
	w.settle(20 * time.Second)
	if s := w.ledger.count(); s.accepted != 10 || s.lost+s.duplicates > 0 {
		t.Errorf("%+v", s)
	}
}
