package hell_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/app"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
)

// asService makes the test binary a service: what it takes of memory is then its
// own, without the receivers that attack it.
const asService = "POSTHORN_HELL_SERVICE"

func TestMain(m *testing.M) {
	if os.Getenv(asService) == "" {
		os.Exit(m.Run())
	}
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve() error {
	var env []string
	for _, s := range os.Environ() {
		if !strings.HasPrefix(s, asService) {
			env = append(env, s)
		}
	}
	cfg, err := config.Load(config.Sources{Environ: env})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	return app.Serve(ctx, cfg, io.Discard, os.Stderr)
}

// process is a service in a process of its own.
type process struct {
	cmd     *exec.Cmd
	partner *client.Client
	path    string
}

func startProcess(t *testing.T, more ...string) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(self), path: filepath.Join(t.TempDir(), "posthorn.db")}
	addr := freeAddress(t)
	// What steers the tests (POSTHORN_CI, POSTHORN_TORTURE…) is no setting.
	clean := slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, config.EnvPrefix) })
	p.cmd.Env = append(clean, append([]string{
		asService + "=1", "POSTHORN_LISTEN=" + addr, "POSTHORN_OPS_LISTEN=off", "POSTHORN_STORE=sqlite:" + p.path,
		"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1"), "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8",
		"POSTHORN_RETRY_SCHEDULE=none", "POSTHORN_LOG_LEVEL=error", "POSTHORN_SHUTDOWN_DELAY=0", "POSTHORN_DRAIN_TIMEOUT=1s",
	}, more...)...)
	p.cmd.Stderr = t.Output()
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.cmd.Process.Kill(); p.cmd.Wait() })
	eventually(t, "readiness", func() bool {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	p.partner = p.tenant(t, "http://"+addr)
	return p
}

func (p *process) tenant(t *testing.T, base string) *client.Client {
	t.Helper()
	admin, err := app.OpenStore(t.Context(), p.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	by := store.Change{Actor: "test", At: time.Now()}
	tenant, err := admin.CreateTenant(t.Context(), by, "acme")
	if err != nil {
		t.Fatal(err)
	}
	text, hash := access.NewToken()
	if _, err := admin.CreateToken(t.Context(), by, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, by.At), Tenant: tenant.ID, Hash: hash, CreatedAt: by.At,
		Scopes: []string{access.ScopeRead, access.ScopeWrite, access.ScopePublish},
	}); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Config{Server: base, Token: text})
	if err != nil {
		t.Fatal(err)
	}
	return api
}

func (p *process) endpoints(t *testing.T, n int, url, pattern string) {
	t.Helper()
	for i := range n { // with paths of their own, in front of the query
		at := strings.Replace(url, "/hooks?", fmt.Sprintf("/hooks/%d?", i), 1)
		if _, err := p.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: at, Events: []string{pattern}}); err != nil {
			t.Fatal(err)
		}
	}
}

func (p *process) publish(t *testing.T, n int, kind string) {
	t.Helper()
	for range n {
		if _, err := p.partner.Send(t.Context(), client.Event{Type: kind, Data: []byte(`{}`)}); err != nil {
			t.Fatal(err)
		}
	}
}

// memory returns a line of /proc/PID/status in KiB: VmRSS, VmHWM.
func (p *process) memory(t *testing.T, line string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skipf("this system does not tell a process's memory: %v", err)
	}
	_, rest, _ := strings.Cut(string(b), line+":")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib
}

func freeAddress(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within thirty seconds: %s", what)
		}
	}
}
