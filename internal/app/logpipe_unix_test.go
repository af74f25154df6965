//go:build unix

package app

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/secretbox"
)

// unread starts the program with a pipe behind standard output and error that is
// full, and that nobody reads before unblocked is called, which returns what came.
func unread(t *testing.T, env []string, args ...string) (cmd *exec.Cmd, unblocked func() []byte) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	full := 0
	for err == nil {
		if err = w.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err == nil {
			var n int
			n, err = w.Write(bytes.Repeat([]byte{'\n'}, 4096))
			full += n
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || full == 0 {
		t.Fatalf("the pipe was not filled: %v after %d bytes", err, full)
	}
	cmd = exec.Command(os.Args[0])
	cmd.Env = append(append(proof.Environ(), env...), childArgs+"="+strings.Join(args, "\n"))
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return cmd, func() []byte {
		all, err := io.ReadAll(r) // until the process has ended
		if err != nil {
			t.Error(err)
		}
		return all[full:]
	}
}

// endsWith waits for a process to end by itself.
func endsWith(t *testing.T, cmd *exec.Cmd, code int) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	select {
	case <-ended:
		if got := cmd.ProcessState.ExitCode(); got != code {
			t.Errorf("the process ended with %d, want %d", got, code)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		<-ended
		t.Error("the process did not end within a minute though nobody reads what it logs")
	}
}

func serveEnv(t *testing.T, listen string, more ...string) []string {
	return append([]string{
		"POSTHORN_LISTEN=" + listen, "POSTHORN_OPS_LISTEN=off", "POSTHORN_STORE=sqlite:" + filepath.Join(t.TempDir(), "posthorn.db"),
		"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1"), "POSTHORN_SHUTDOWN_DELAY=0",
	}, more...)
}

// TestALogThatNobodyReadsHoldsNobodyUp has the real process answer and end while
// what it logs cannot be written. Once somebody reads, whole lines come.
func TestALogThatNobodyReadsHoldsNobodyUp(t *testing.T) {
	addr := freeAddress(t)
	cmd, unblocked := unread(t, serveEnv(t, addr), "serve")
	api := &http.Client{Timeout: 20 * time.Second}
	eventually(t, "it listens", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 250 {
				resp, err := api.Get("http://" + addr + "/v2.3/webhooks/endpoints")
				if err != nil {
					t.Errorf("a request was not answered: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusUnauthorized && resp.StatusCode != http.StatusTooManyRequests {
					t.Errorf("got %d without a token", resp.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	read := make(chan []byte, 1)
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	endsWith(t, cmd, 0)
	go func() { read <- unblocked() }()
	for line := range bytes.Lines(<-read) {
		if !json.Valid(line) {
			t.Errorf("half a line was written: %q", line)
		}
	}
}

// TestAFaultThatNobodyReadsEndsTheProcess: what serve says last does not hold its end.
func TestAFaultThatNobodyReadsEndsTheProcess(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cmd, _ := unread(t, serveEnv(t, taken.Addr().String()), "serve")
	endsWith(t, cmd, 1)
}

// TestDevEndsThoughNobodyReads: its lines for people hold nobody up either.
func TestDevEndsThoughNobodyReads(t *testing.T) {
	addr := freeAddress(t)
	cmd, _ := unread(t, []string{"POSTHORN_LISTEN=" + addr, "POSTHORN_OPS_LISTEN=off"}, "dev", "--dir", filepath.Join(t.TempDir(), "dev"))
	eventually(t, "it answers", func() bool {
		resp, err := http.Get("http://" + addr + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	endsWith(t, cmd, 0)
}
