// Package proof drives the real binary from outside: it builds it, starts
// "posthorn serve" on a store of its own, talks to it over HTTP and its command
// line, and ends it politely or by SIGKILL. The crash harness, the tests of the
// documented API and "posthorn bench" stand on it. It shares no code with the
// service, so that both cannot be wrong in the same way.
package proof

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Build compiles cmd/posthorn of the module that holds the working directory
// into dir and returns the binary's path.
func Build(ctx context.Context, dir string) (string, error) {
	binary := filepath.Join(dir, "posthorn")
	out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "github.com/posthorn/posthorn/cmd/posthorn").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build ./cmd/posthorn: %w\n%s", err, out)
	}
	return binary, nil
}

// Options say which server to run.
type Options struct {
	// Binary is the posthorn to run.
	Binary string
	// Dir holds store and log, and is the process's working directory.
	Dir string
	// File is the database, when it is not to be in Dir.
	File string
	// Database is the PostgreSQL that holds the store instead of a file, as --store
	// takes it.
	Database string
	// Keys are the encryption keys; empty for new ones. All nodes of a database
	// have the same.
	Keys string
	// Args follow those that every run has: loopback receivers over http, no
	// metrics listener.
	Args []string
}

// Server is one store with, most of the time, a "posthorn serve" on it. It
// keeps address and keys over restarts. It is for one goroutine, but
// [Server.URL] and [Server.Command].
type Server struct {
	opts   Options
	listen string
	keys   string
	under  []string
	cmd    *exec.Cmd
	exited chan struct{} // closed when cmd has ended
}

// Start makes a new store in o.Dir, starts the service on a free port and waits
// until it is ready.
func Start(ctx context.Context, o Options) (*Server, error) { return StartUnder(ctx, o) }

// StartUnder is Start with the service run as [Server.Under] says.
func StartUnder(ctx context.Context, o Options, command ...string) (*Server, error) {
	s, err := Prepare(ctx, o)
	if err != nil {
		return nil, err
	}
	s.under = command
	if err := s.Launch(); err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// Prepare makes a Server that [Server.Launch] starts.
func Prepare(ctx context.Context, o Options) (*Server, error) {
	s := &Server{opts: o}
	var err error
	if s.opts.Dir, err = filepath.Abs(o.Dir); err != nil {
		return nil, err
	}
	if s.keys = o.Keys; s.keys == "" {
		keys, err := s.run(ctx, nil, "key", "generate")
		if err != nil {
			return nil, err
		}
		s.keys = strings.TrimSpace(keys)
	}
	s.listen, err = freePort()
	return s, err
}

// freePort finds a port below those that systems give out by themselves, so that
// nobody takes it between two runs of the service.
func freePort() (string, error) {
	var err error
	for range 100 {
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12_000+rand.IntN(20_000))); err == nil {
			defer l.Close()
			return l.Addr().String(), nil
		}
	}
	return "", err
}

// Under has the next launches run the service under another program, a tracer,
// that ends by starting it in its own place. Nothing ends that.
func (s *Server) Under(command ...string) { s.under = command }

// Launch starts the process and returns at once.
func (s *Server) Launch() error {
	log, err := os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child has its own
	args := append([]string{"serve", "--listen", s.listen, "--ops-listen", "off", "--store", s.Store(),
		"--allow-http", "--allow-private", "127.0.0.0/8"}, s.opts.Args...)
	s.cmd = s.command(context.Background(), args)
	if len(s.under) > 0 {
		if s.cmd.Path, err = exec.LookPath(s.under[0]); err != nil {
			return err
		}
		s.cmd.Args = slices.Concat(s.under, []string{s.opts.Binary}, args)
	}
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		return err
	}
	s.exited = make(chan struct{})
	go func(cmd *exec.Cmd, exited chan struct{}) {
		_ = cmd.Wait() // the state says it
		close(exited)
	}(s.cmd, s.exited)
	return nil
}

// Ready waits until the service answers that it is; an error when the process
// ends first or ctx does.
func (s *Server) Ready(ctx context.Context) error {
	hc := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	err := Until(ctx, 10*time.Millisecond, func() (bool, error) {
		select {
		case <-s.exited:
			return false, fmt.Errorf("posthorn serve ended: %s", s.cmd.ProcessState)
		default:
		}
		resp, err := hc.Get(s.URL() + "/readyz")
		if err != nil {
			return false, nil
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for /readyz of %s: %w\n%s", s.listen, err, s.LogTail())
	}
	return nil
}

// URL is where the service listens.
func (s *Server) URL() string { return "http://" + s.listen }

// Keys are the encryption keys that the service has.
func (s *Server) Keys() string { return s.keys }

// Store is the store as --store takes it.
func (s *Server) Store() string {
	if s.opts.Database != "" {
		return s.opts.Database
	}
	return "sqlite:" + s.File()
}

// File is the store's database file.
func (s *Server) File() string {
	if s.opts.File != "" {
		return s.opts.File
	}
	return filepath.Join(s.opts.Dir, "posthorn.db")
}

// PID is the process's id.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Kill ends the process by SIGKILL and returns when it is gone.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill() // it may have ended by itself
	<-s.exited
}

// Stop asks the process to end by SIGTERM and returns its exit code, or an
// error when it has not ended within the limit; then it is killed.
func (s *Server) Stop(limit time.Duration) (int, error) {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return 0, err
	}
	return s.Wait(limit)
}

// Signal sends the process a signal and does not wait.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Exited is closed when the process has ended.
func (s *Server) Exited() <-chan struct{} { return s.exited }

// Wait returns the exit code of a process that is about to end, -1 when a signal
// ended it, or an error when it has not within the limit; then it is killed.
func (s *Server) Wait(limit time.Duration) (int, error) {
	patience := time.NewTimer(limit)
	defer patience.Stop()
	select {
	case <-s.exited:
		return s.cmd.ProcessState.ExitCode(), nil
	case <-patience.C:
		s.Kill()
		return 0, fmt.Errorf("still running after %s\n%s", limit, s.LogTail())
	}
}

// Command runs another posthorn command on the server's store and address, and
// returns what it printed on stdout.
func (s *Server) Command(ctx context.Context, args ...string) (string, error) {
	return s.run(ctx, []string{"POSTHORN_SERVER=" + s.URL(), "POSTHORN_STORE=" + s.Store()}, args...)
}

func (s *Server) run(ctx context.Context, env []string, args ...string) (string, error) {
	cmd := s.command(ctx, args)
	cmd.Env = append(cmd.Env, env...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("posthorn %s: %w\n%s", strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}

// Environ is the process's environment without the caller's own settings of
// Posthorn.
func Environ() (list []string) {
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "POSTHORN_") {
			list = append(list, kv)
		}
	}
	return list
}

func (s *Server) command(ctx context.Context, args []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, s.opts.Binary, args...)
	cmd.Dir, cmd.Env = s.opts.Dir, Environ()
	if s.keys != "" {
		cmd.Env = append(cmd.Env, "POSTHORN_ENCRYPTION_KEYS="+s.keys)
	}
	return cmd
}

// Token makes an access token of the tenant on the store, while the server
// runs. The tenant is made if it is not there.
func (s *Server) Token(ctx context.Context, tenant string, scopes ...string) (string, error) {
	args := []string{"token", "create", "--store", s.Store(), "--tenant", tenant}
	for _, scope := range scopes {
		args = append(args, "--scope", scope)
	}
	out, err := s.run(ctx, nil, args...)
	return strings.TrimSpace(out), err
}

func (s *Server) logPath() string { return filepath.Join(s.opts.Dir, "serve.log") }

// Log is all that the server logged, over all its runs.
func (s *Server) Log() ([]byte, error) { return os.ReadFile(s.logPath()) }

// LogTail is the end of the log, for a failure's message.
func (s *Server) LogTail() string {
	b, err := s.Log()
	if err != nil {
		return err.Error()
	}
	const most = 4096
	if len(b) > most {
		b = b[len(b)-most:]
		b = b[bytes.IndexByte(b, '\n')+1:]
	}
	return "the server's log ends:\n" + string(b)
}

// Until calls cond at once and then every interval, until it reports true or an
// error, or ctx ends.
func Until(ctx context.Context, every time.Duration, cond func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if ok, err := cond(); ok || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
