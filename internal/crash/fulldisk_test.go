package crash

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

// mountSmall mounts a file system of so many MiB, or skips where it may not.
func mountSmall(t *testing.T, mib int) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "tmpfs", dir).CombinedOutput()
	if err != nil {
		unproved(t, fmt.Sprintf("no small file system can be mounted (needs root): %v %s", err, out))
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir
}

// fill takes all that is free, to the last block, and returns how to give it
// back.
func fill(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

// alive fails when the process has ended.
func (w *world) alive() {
	w.t.Helper()
	resp, err := http.Get(w.server.URL() + "/healthz")
	if err != nil {
		w.t.Fatalf("the process does not answer: %v\n%s", err, w.server.LogTail())
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		w.t.Errorf("/healthz: %s", resp.Status)
	}
}

// refusing waits until n more requests were answered 503 with Retry-After.
func (w *world) refusing(p *load, n int64) {
	w.t.Helper()
	goal := p.refused.Load() + n
	w.until(func() (bool, error) {
		if err := p.pace.Wrong(); err != nil {
			return false, err
		}
		select {
		case <-w.server.Exited():
			return false, errors.New("the process ended")
		default:
			return p.refused.Load() >= goal, nil
		}
	})
}

// bad notes that the disk is about to be bad.
func (w *world) bad() {
	if w.badSince.IsZero() {
		w.badSince = time.Now()
	}
}

// complete ends the load and settles all accounts: first with the process that
// met the faults, then with one that reads what it left on disk.
func (w *world) complete(p *load, promise string) {
	w.t.Helper()
	if long { // six seconds: a result waits up to five before it is tried again
		w.publish(p, 4800)
	} else {
		w.publish(p, 200)
		// Since then results may wait, longer on a slow machine.
		w.ledger.forgotten = time.Since(w.badSince) + time.Second
	}
	w.kill()
	w.relaunch()
	w.ready()
	w.publish(p, 100)
	if err := p.finish(); err != nil {
		w.t.Fatal(err)
	}
	w.setStatus(held, "active")
	w.settle(40 * time.Second)
	w.judge(p, promise)
}

// TestFullDisk fills the disk to the last block under load. Publishing answers
// 503 with Retry-After, the process lives, and when there is room again all that
// was accepted is delivered and recorded; also when the process was killed and
// started on the full disk.
func TestFullDisk(t *testing.T) {
	dir := mountSmall(t, 64)
	t.Parallel()
	rounds := 1
	if long {
		rounds = 8
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(rounds)*20*time.Second)
	defer cancel()
	w := newWorldOn(ctx, t, proof.Options{Binary: binary, Dir: t.TempDir(), File: filepath.Join(dir, "posthorn.db")})
	w.mayLogErrors = true
	p := startLoad(ctx, w.api, w.ledger, 800, "full")
	for round := range rounds {
		w.publish(p, 500)
		w.bad()
		free := fill(t, dir)
		w.refusing(p, 500)
		w.alive()
		if round%2 == 1 {
			w.kill()
			w.startFull(p)
		}
		free()
	}
	w.complete(p, "what was answered 202 arrives, though the disk is full for a while")
	tally.Count(t, "a full disk refuses with 503 and Retry-After and loses nothing", rounds)
	t.Logf("%d rounds, %d answers of 503", rounds, p.refused.Load())
}

// startFull starts on a full disk: the process ends by a clear error, or it runs
// and refuses until there is room.
func (w *world) startFull(p *load) {
	w.t.Helper()
	w.relaunch()
	goal := p.refused.Load() + 200
	w.until(func() (bool, error) {
		select {
		case <-w.server.Exited():
			w.t.Logf("a start on the full disk ends\n%s", w.server.LogTail())
			w.relaunch() // as a supervisor does, until there is room
			return true, nil
		default:
			return p.refused.Load() >= goal, nil
		}
	})
}

// TestFailingDisk lets the system calls of the running process fail, as a dying
// disk does: all of them, or one in so many.
func TestFailingDisk(t *testing.T) {
	needTracer(t)
	t.Parallel()
	faults := []string{"pwrite64:error=EIO", "fsync:error=EIO"}
	if long {
		faults = append(faults, "pwrite64:error=EIO:when=5+7", "fsync:error=EIO:when=2+3", "pwrite64:error=ENOSPC",
			"pwrite64:error=ENOSPC:when=3+11", "pwrite64,fsync:error=EIO", "pread64:error=EIO", "pread64:error=EIO:when=3+5")
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(len(faults))*20*time.Second)
	defer cancel()
	w := newWorld(ctx, t, binary)
	w.mayLogErrors = true
	p := startLoad(ctx, w.api, w.ledger, 800, "fail")
	for _, fault := range faults {
		w.publish(p, 300)
		before := p.refused.Load()
		heal := w.inject(fault)
		if strings.HasPrefix(fault, "pread64:error=EIO:") {
			w.publish(p, 100) // what is read is nearly all in memory
		} else {
			w.refusing(p, 300)
		}
		w.alive()
		heal()
		w.publish(p, 100)
		t.Logf("%s: %d answers of 503", fault, p.refused.Load()-before)
	}
	w.complete(p, "what was answered 202 arrives, though the disk fails for a while")
	tally.Count(t, "a failing disk refuses with 503 and Retry-After and loses nothing", len(faults))
}

// inject makes system calls of the server fail until heal is called.
func (w *world) inject(fault string) (heal func()) {
	w.t.Helper()
	w.bad()
	calls, _, _ := strings.Cut(fault, ":")
	cmd := exec.CommandContext(w.ctx, "strace", "-f", "-qq", "-e", "signal=none", "-o", os.DevNull,
		"-p", strconv.Itoa(w.server.PID()), "-e", "trace="+calls, "-e", "inject="+fault)
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	return func() {
		w.t.Helper()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			w.t.Fatal(err)
		}
		_ = cmd.Wait() // it ends by the signal
	}
}
