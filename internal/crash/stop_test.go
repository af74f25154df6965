package crash

import (
	"context"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
)

// TestStopUnderLoad: SIGTERM ends the process within its limit, though a
// receiver hangs; what was accepted arrives after the next start.
func TestStopUnderLoad(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const drain = time.Second
	w := newWorld(ctx, t, binary, "--shutdown-delay", "0s", "--drain-timeout", drain.String())
	p := startLoad(ctx, w.api, w.ledger, min(*rate, 1000), "stop")
	w.publish(p, 500)
	w.stuck.Store(true)
	w.publish(p, 500)
	asked := time.Now()
	code, err := w.server.Stop(drain + 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(asked); code != 0 {
		t.Errorf("exit code %d after SIGTERM, want 0\n%s", code, w.server.LogTail())
	} else {
		t.Logf("ended %s after SIGTERM, with a drain time of %s", took.Round(time.Millisecond), drain)
	}
	w.stuck.Store(false)
	w.relaunch()
	w.ready()
	w.publish(p, 500)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.setStatus(held, "active")
	w.settle(30 * time.Second)
	w.judge(p, "what was answered 202 arrives once, though the process is stopped") // duplicates have no kill to explain them here
	tally.Count(t, "SIGTERM under load ends in time with exit 0 and loses nothing", 1)
}

// TestStopsUnderLoad: SIGTERM again and again while all receivers answer: each
// time exit 0, what is in flight ends, nothing is lost and nothing sent twice.
func TestStopsUnderLoad(t *testing.T) {
	t.Parallel()
	stops := 2
	if long {
		stops = 20
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(stops)*10*time.Second)
	defer cancel()
	w := newWorld(ctx, t, binary)
	p := startLoad(ctx, w.api, w.ledger, min(*rate, 1000), "stops")
	for range stops {
		w.publish(p, 400)
		asked := time.Now()
		code, err := w.server.Stop(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(asked); code != 0 || took > 10*time.Second {
			t.Errorf("exit code %d, %s after SIGTERM; want 0, soon\n%s", code, took, w.server.LogTail())
		}
		w.relaunch()
		w.ready()
	}
	w.publish(p, 100)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.setStatus(held, "active")
	w.settle(30 * time.Second)
	w.judge(p, "what was answered 202 arrives once, though the process is stopped")
	tally.Count(t, "SIGTERM under load ends in time with exit 0 and loses nothing", stops)
}

// TestSecondSignal: a second SIGTERM ends a drain that a hanging receiver holds
// up, at once, and nothing is lost.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	w := newWorld(ctx, t, binary, "--shutdown-delay", "0s", "--drain-timeout", "30s")
	p := startLoad(ctx, w.api, w.ledger, min(*rate, 1000), "second")
	w.publish(p, 300)
	w.stuck.Store(true)
	w.publish(p, 300)
	if err := w.server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The drain has begun once nobody can publish any more, and goes on, as the
	// hanging receiver holds it up.
	cut := p.broken.Load()
	w.until(func() (bool, error) { return p.broken.Load() > cut+connections, nil })
	select {
	case <-w.server.Exited():
		t.Fatalf("ended before the second signal\n%s", w.server.LogTail())
	default:
	}
	asked := time.Now()
	code, err := w.server.Stop(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(asked); took > 2*time.Second || code == 0 {
		t.Errorf("exit code %d, %s after the second SIGTERM; want another than 0, at once", code, took)
	}
	w.gone() // what was answered and not recorded comes again
	w.stuck.Store(false)
	w.relaunch()
	w.ready()
	w.publish(p, 100)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	w.setStatus(held, "active")
	w.settle(30 * time.Second)
	w.judge(p, "what was answered 202 arrives, though the process is stopped twice")
	tally.Count(t, "a second SIGTERM ends the process at once and loses nothing", 1)
}

// TestAStopServesOnUntilItsDelayIsOver: after SIGTERM /readyz says 503 and all else
// goes on, accepting and delivering, on connections that end with their answer; a
// second signal ends that at once.
func TestAStopServesOnUntilItsDelayIsOver(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	w := newWorld(ctx, t, binary, "--shutdown-delay", "10m")
	p := startLoad(ctx, w.api, w.ledger, min(*rate, 500), "delay")
	w.publish(p, 200)
	if err := w.server.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	readyz := func() *http.Response {
		t.Helper()
		resp, err := http.Get(w.server.URL() + "/readyz")
		if err != nil {
			t.Fatalf("the listener is closed: %v", err)
		}
		resp.Body.Close()
		return resp
	}
	w.until(func() (bool, error) { return readyz().StatusCode == http.StatusServiceUnavailable, nil })
	if !readyz().Close {
		t.Error("a client keeps its connection, which is cut off when the listener closes")
	}
	broken := p.broken.Load()
	w.publish(p, 500)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	if n := p.broken.Load() - broken; n > 0 {
		t.Errorf("%d publishes were refused within the delay", n)
	}
	w.setStatus(held, "active")
	w.settle(30 * time.Second)
	asked := time.Now()
	code, err := w.server.Stop(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(asked); took > 2*time.Second || code == 0 {
		t.Errorf("exit code %d, %s after the second SIGTERM; want another than 0, at once", code, took)
	}
	w.gone()
	w.judge(p, "what was answered 202 arrives, though the process is stopped twice")
	tally.Count(t, "a stop goes on serving until --shutdown-delay is over", 1)
}
