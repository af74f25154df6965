// Package pgtest gives tests a PostgreSQL: the one that POSTHORN_TEST_POSTGRES
// names, or a throw-away one started from the binaries that are installed, with
// its default, durable settings.
package pgtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Main runs a package's tests and stops the server that they started.
func Main(m *testing.M) {
	code := m.Run()
	if started != nil {
		if err := started.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// how tells a user how to have these tests.
const how = "install PostgreSQL 15 or newer (its initdb and postgres; on Debian the package postgresql), or set POSTHORN_TEST_POSTGRES to the URL of one whose user may create databases"

var (
	once    sync.Once
	started *Server // nil when POSTHORN_TEST_POSTGRES is used
	admin   string  // URL of the server's maintenance database
	missing error
)

// URL returns the address of the tests' server. Without one the test is skipped;
// in CI, where POSTHORN_CI is set, it fails.
func URL(t testing.TB) string {
	t.Helper()
	once.Do(func() {
		if admin = os.Getenv("POSTHORN_TEST_POSTGRES"); admin != "" {
			return
		}
		if started, missing = Start(); missing == nil {
			admin = started.URL()
		}
	})
	switch {
	case missing == nil:
	case errors.Is(missing, ErrNotInstalled) && os.Getenv("POSTHORN_CI") == "":
		t.Skipf("there is no PostgreSQL to test with: %s", how)
	case errors.Is(missing, ErrNotInstalled):
		t.Fatalf("there is no PostgreSQL to test with, and CI must have one: %s", how)
	default:
		t.Fatal(missing)
	}
	return admin
}

// Missing skips a test that needs a server of its own when there are no binaries
// to start one from; in CI it fails.
func Missing(t testing.TB) {
	t.Helper()
	switch _, err := binaries(); {
	case err == nil:
	case os.Getenv("POSTHORN_CI") == "":
		t.Skipf("there are no PostgreSQL binaries to start a server from: %s", how)
	default:
		t.Fatalf("there are no PostgreSQL binaries to start a server from, and CI must have them: %s", how)
	}
}

// Socket is the folder of the server's socket, or empty when it is not ours.
func Socket(t testing.TB) string {
	t.Helper()
	URL(t)
	if started == nil {
		return ""
	}
	return started.dir
}

// Database returns the URL of a database of the test's own. template is the name
// of one to copy, or empty.
func Database(t testing.TB, template string) string {
	t.Helper()
	name := "t_" + strings.ToLower(rand.Text())[:20]
	query := "CREATE DATABASE " + name
	if template != "" {
		query += " TEMPLATE " + template
	}
	Exec(t, URL(t), query)
	if started == nil { // a drop costs a checkpoint; a throw-away server goes as a whole
		t.Cleanup(func() { Exec(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	}
	return With(admin, name)
}

// With is the URL of another database of the same server.
func With(address, name string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	u.Path = "/" + name
	return u.String()
}

// Name is the database that a URL names.
func Name(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		panic(err)
	}
	return strings.TrimPrefix(u.Path, "/")
}

// Exec runs a statement on a connection of its own.
func Exec(t testing.TB, address, query string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

// ErrNotInstalled: there are no binaries to start a server from.
var ErrNotInstalled = errors.New("PostgreSQL's binaries are not installed")

// Server is a throw-away server.
type Server struct {
	dir      string // holds data/, the socket and the log
	bin      string
	settings []string
	env      []string // beside the tests' own
	proc     *process
}

// Dir is the folder of the server's socket.
func (s *Server) Dir() string { return s.dir }

// Start makes a server and starts it. Settings are of the form name=value.
func Start(settings ...string) (*Server, error) { return StartIn(nil, settings...) }

// ThrowAway starts a server of the test's own, which it may crash, and stops it with
// the test. Without binaries the test is skipped; in CI it fails.
func ThrowAway(t testing.TB, settings ...string) *Server {
	t.Helper()
	Missing(t)
	server, err := Start(settings...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// StartIn is Start with further environment variables for the server.
func StartIn(env []string, settings ...string) (*Server, error) {
	bin, err := binaries()
	if err != nil {
		return nil, err
	}
	s := &Server{bin: bin, settings: settings, env: env}
	if s.dir, err = os.MkdirTemp("", "posthorn-pg-"); err != nil {
		return nil, err
	}
	if err := ownedByUser(s.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
	asUser(initdb)
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("initdb: %w\n%s", err, out), os.RemoveAll(s.dir))
	}
	if err := s.Run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.dir))
	}
	return s, nil
}

// Standby copies the server, which must run, and starts the copy as a standby that
// replicates it. Settings are added to those of the copied server.
func (s *Server) Standby(settings ...string) (*Server, error) {
	copied := &Server{bin: s.bin, settings: append(slices.Clone(s.settings), settings...)}
	var err error
	if copied.dir, err = os.MkdirTemp("", "posthorn-pg-"); err != nil {
		return nil, err
	}
	if err := ownedByUser(copied.dir); err != nil {
		return nil, errors.Join(err, os.RemoveAll(copied.dir))
	}
	// -R writes where to replicate from; -c fast does not wait for a checkpoint.
	backup := exec.Command(s.program("pg_basebackup"), "-h", s.dir, "-U", "postgres", "-D", copied.data(), "-R", "-X", "stream", "-c", "fast", "--no-sync")
	asUser(backup)
	if out, err := backup.CombinedOutput(); err != nil {
		return nil, errors.Join(fmt.Errorf("pg_basebackup: %w\n%s", err, out), os.RemoveAll(copied.dir))
	}
	if err := copied.Run(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(copied.dir))
	}
	return copied, nil
}

// program finds a program of the server's, which may stand apart from it.
func (s *Server) program(name string) string {
	server, err := filepath.EvalSymlinks(filepath.Join(s.bin, "postgres"))
	if err != nil {
		server = filepath.Join(s.bin, "postgres")
	}
	for _, dir := range append([]string{s.bin, filepath.Dir(server)}, installed()...) {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

// Promote makes a standby a server of its own and returns when it can be written to.
func (s *Server) Promote(ctx context.Context) error {
	c, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	defer c.Close(ctx)
	var done bool
	if err := c.QueryRow(ctx, `SELECT pg_promote(true, 60)`).Scan(&done); err != nil || !done {
		return fmt.Errorf("the standby was not promoted: %v %w", done, err)
	}
	return nil
}

// installed are the folders where Debian puts servers, the newest first.
func installed() []string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(dirs)
	return dirs
}

// binaries finds initdb and postgres, the newest first.
func binaries() (string, error) {
	dirs := installed()
	if path, err := exec.LookPath("postgres"); err == nil {
		dirs = append([]string{filepath.Dir(path)}, dirs...)
	}
	for _, dir := range dirs {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil {
			return dir, nil
		}
	}
	return "", ErrNotInstalled
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// URL is the address of the maintenance database.
func (s *Server) URL() string { return SocketURL(s.dir, "postgres") }

// SocketURL is the address of a database behind a socket in a folder.
func SocketURL(dir, database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {dir}, "user": {"postgres"}, "sslmode": {"disable"}}.Encode()
}

// Run starts the server, again after it was stopped or killed, and waits until
// it answers.
func (s *Server) Run() error {
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "max_connections=300"}
	for _, setting := range s.settings {
		args = append(args, "-c", setting)
	}
	cmd := exec.Command(filepath.Join(s.bin, "postgres"), args...)
	cmd.Env = append(os.Environ(), s.env...)
	asUser(cmd)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if s.proc, err = start(cmd); err != nil {
		return err
	}
	for until := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, s.URL())
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		if s.proc.ended() || time.Now().After(until) {
			text, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			return errors.Join(fmt.Errorf("the test's PostgreSQL does not answer: %w\n%s", err, text), s.Kill())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// Kill ends the server without letting it finish anything, as a crash does.
func (s *Server) Kill() error { return s.proc.end(killed) }

// Interrupt shuts the server down at once, in order.
func (s *Server) Interrupt() error { return s.proc.end(interrupted) }

// Stop ends the server and removes its files.
func (s *Server) Stop() error { return errors.Join(s.proc.end(killed), os.RemoveAll(s.dir)) }
