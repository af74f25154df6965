package send_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
)

// squid starts the proxy on a loopback port, with names of its own, and returns its url.
func squid(t *testing.T, hosts string) string {
	t.Helper()
	program, err := exec.LookPath("squid")
	if err != nil {
		if _, err = os.Stat("/usr/sbin/squid"); err == nil {
			program = "/usr/sbin/squid"
		}
	}
	switch {
	case err != nil && os.Getenv("POSTHORN_CI") == "":
		t.Skip("squid is not installed: not tried through a real proxy")
	case err != nil:
		t.Fatal("squid is not installed")
	}
	dir, err := os.MkdirTemp("", "squid") // t.TempDir may not be read by the user that it becomes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	port := freePort(t)
	config := filepath.Join(dir, "squid.conf")
	write(t, filepath.Join(dir, "hosts"), hosts)
	write(t, config, fmt.Sprintf(`http_port 127.0.0.1:%d
http_access allow localhost
http_access deny all
hosts_file %s
dns_nameservers 127.0.0.1
dns_timeout 500 milliseconds
dns_retransmit_interval 500 milliseconds
forward_timeout 2 seconds
connect_timeout 2 seconds
cache deny all
cache_mem 8 MB
access_log none
cache_log %s
pid_filename none
shutdown_lifetime 0 seconds
workers 1
`, port, filepath.Join(dir, "hosts"), filepath.Join(dir, "cache.log")))
	cmd := exec.Command(program, "-N", "-n", fmt.Sprintf("posthorn%d", port), "-f", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cmd.Process.Kill(); <-ended })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	address := fmt.Sprintf("127.0.0.1:%d", port)
	for {
		nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			nc.Close()
			return "http://" + address
		}
		select {
		case <-ended:
			said, _ := os.ReadFile(filepath.Join(dir, "cache.log"))
			t.Fatalf("squid ended: %s%s", output.String(), said)
		case <-ctx.Done():
			t.Fatalf("squid does not listen: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// Squid answers 503 to CONNECT where it cannot reach the host, whatever the reason.
// One endpoint of that kind, alone, fails like any other; a proxy that reaches
// nobody is our own side's.
func TestThroughSquid(t *testing.T) {
	t.Parallel()
	receiver := listen(t, nil, answering(accepted))
	open, shut := receiver.Addr().(*net.TCPAddr).Port, freePort(t)
	proxy := squid(t, "127.0.0.1 good.example dead.example\n2001:db8::1 six.example\n")
	dead := fmt.Sprintf("http://dead.example:%d/", shut)
	good := fmt.Sprintf("http://good.example:%d/", open)
	six, unknown := "http://six.example:8080/", "http://unknown.example:8080/"
	client := func() *send.Client { return throughProxy(t, proxy, newAuthority(t)) }
	for _, url := range []string{dead, six, unknown} {
		alone := client()
		for i := range 2 {
			if a := mustSend(t, alone, request(url)); a.Class != posthorn.ClassConnect && a.Class != posthorn.ClassTimeout {
				t.Errorf("%s alone, attempt %d: %s", url, i+1, a.Explain())
			}
		}
	}
	all := client()
	mustSend(t, all, request(dead))
	mustSend(t, all, request(six))
	if a := mustSend(t, all, request(unknown)); a.Class != posthorn.ClassLocal {
		t.Errorf("the third of three that fail: %s", a.Explain())
	}
	if a := mustSend(t, all, request(good)); !a.Succeeded() {
		t.Errorf("one that works: %s", a.Explain())
	}
	for _, url := range []string{dead, six, unknown} {
		if a := mustSend(t, all, request(url)); a.Class == posthorn.ClassLocal {
			t.Errorf("%s beside one that works: %s", url, a.Explain())
		}
	}
}
