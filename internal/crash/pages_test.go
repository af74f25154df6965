package crash

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/tally"
)

// spoilPage zeroes or garbles a page from some sector on, as a disk does that
// wrote a part of it and had no log to make it good.
func spoilPage(random *rand.Rand, whole []byte) (damaged []byte, what string) {
	const page = 4096
	damaged = slices.Clone(whole)
	at := random.IntN(len(whole)/page) * page
	from := random.IntN(page/sector) * sector
	part := damaged[at+from : at+page]
	if random.IntN(2) == 0 {
		clear(part)
		return damaged, fmt.Sprintf("page %d zeroed from %d", at/page+1, from)
	}
	for i := range part {
		part[i] = byte(random.Uint32())
	}
	return damaged, fmt.Sprintf("page %d garbled from %d", at/page+1, from)
}

// cleanFile returns a store's file after a clean stop.
func (l *leftover) cleanFile(t *testing.T) []byte {
	t.Helper()
	l.world.relaunch()
	l.world.ready()
	if _, err := l.world.server.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(l.world.server.File())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestDamagedPages: a start on a damaged page refuses or goes on; it does not
// panic, and no event is missing without an error. What SQLite cannot see, as it
// has no checksums of pages, is damage within the text of a row.
func TestDamagedPages(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 5))
	l := leaveBehind(ctx, t)
	path, whole := l.world.server.File(), l.cleanFile(t)
	tries := 40
	if long {
		tries = 2000
	}
	outcomes := make(map[string]int)
	for range tries {
		damaged, what := spoilPage(random, whole)
		keys, err := l.open(ctx, t, map[string][]byte{path: damaged})
		switch {
		case errors.Is(err, sqlite.ErrCorrupt):
			outcomes["refused at the start"]++
		case err != nil && (strings.Contains(err.Error(), "integrity check") || strings.Contains(err.Error(), "malformed")):
			outcomes["an error when read"]++
		case err != nil && strings.Contains(err.Error(), "has another body"), err != nil && strings.Contains(err.Error(), "was never published"):
			outcomes["text garbled"]++
		case err != nil:
			t.Errorf("%s: not a clear error: %.300q", what, err)
		case slices.Equal(keys, l.keys):
			outcomes["no effect"]++
		default:
			t.Errorf("%s: %d of %d events are there and SQLite finds no fault", what, len(keys), len(l.keys))
		}
	}
	t.Log(outcomes)
	tally.Count(t, "a damaged page is an error, never a panic or a missing event", tries)
}

// TestServingDamagedPages has the real binary work with damaged files: it ends by
// an error that says what to do, or answers what it can.
func TestServingDamagedPages(t *testing.T) {
	t.Parallel()
	tries := 4
	if long {
		tries = 60
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute+time.Duration(tries)*15*time.Second)
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 6))
	l := leaveBehind(ctx, t)
	whole := l.cleanFile(t)
	w, outcomes := l.world, make(map[string]int)
	for range tries {
		damaged, what := spoilPage(random, whole)
		for _, suffix := range []string{"-wal", "-shm"} {
			_ = os.Remove(w.server.File() + suffix)
		}
		if err := os.WriteFile(w.server.File(), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		w.relaunch()
		outcome, err := l.use(ctx)
		if err != nil {
			t.Errorf("%s: %v\n%s", what, err, w.server.LogTail())
			w.server.Kill()
		}
		outcomes[outcome]++
	}
	t.Log(outcomes)
	log, err := w.server.Log()
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.Index(string(log), "goroutine "); i >= 0 {
		t.Errorf("the server panicked\n%.4096s", log[max(0, i-500):])
	}
	tally.Count(t, "a damaged page is an error, never a panic or a missing event", tries)
}

// use asks a bit of everything of a server on a damaged file and stops it.
func (l *leftover) use(ctx context.Context) (outcome string, err error) {
	w := l.world
	alive := func() (bool, error) {
		select {
		case <-w.server.Exited():
			return true, nil
		default:
		}
		resp, err := http.Get(w.server.URL() + "/healthz")
		if err != nil {
			return false, nil
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK, nil
	}
	if err := proof.Until(ctx, 10*time.Millisecond, alive); err != nil {
		return "", err
	}
	outcome = "all answers 2xx"
	for i := range 20 {
		path, method, body := [...]string{"/events?limit=250", "/deliveries?limit=250", "/endpoints", "/events", "/events/" + l.keys[i]}[i%5], http.MethodGet, []byte(nil)
		if path == "/events" {
			method, body = http.MethodPost, fmt.Appendf(nil, `{"type":%q,"data":{"case_id":1,"client_id":2,"n":%d,"note":"x"}}`, mix[i%len(mix)], i)
		}
		err := w.api.Call(ctx, method, path, body, nil)
		status, answered := errors.AsType[*proof.Status](err)
		switch {
		case answered:
			outcome = "some answers " + http.StatusText(status.Code)
		case err != nil:
			select {
			case <-w.server.Exited():
				i = 20
			default:
				return "", err
			}
		}
	}
	code, err := w.server.Stop(30 * time.Second)
	if err != nil {
		return "", err
	}
	if code == 2 || code < 0 {
		return "", fmt.Errorf("exit code %d", code)
	}
	if code != 0 {
		outcome += fmt.Sprintf(", exit code %d", code)
	}
	return outcome, nil
}
