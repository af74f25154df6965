package crash

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/tally"
)

// long is set for the forms that take minutes.
var long = os.Getenv("POSTHORN_TORTURE") == "long"

// recording is a run of the real binary under load, call by call.
type recording struct {
	world  *world
	dir    string
	before map[string][]byte // the files at its begin
	steps  []step
}

// record runs binary, traced, on a new store until it has accepted n events, and
// ends it politely or not.
func record(ctx context.Context, t *testing.T, binary string, n int, politely bool) *recording {
	t.Helper()
	w := newWorld(ctx, t, binary)
	if _, err := w.server.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	r := &recording{world: w, dir: filepath.Dir(w.server.File())}
	var err error
	if r.before, err = contents(w.server.File()); err != nil {
		t.Fatal(err)
	}
	trace := traced{filepath.Join(t.TempDir(), "trace")}
	w.server.Under(trace.command()...)
	w.relaunch()
	w.ready()
	p := startLoad(ctx, w.api, w.ledger, 1000, "loss")
	w.publish(p, n)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	follower, err := tracer(w.server.PID())
	if err != nil {
		t.Fatal(err)
	}
	if !politely {
		w.kill()
	} else if _, err := w.server.Stop(20 * time.Second); err != nil {
		t.Fatal(err)
	}
	w.server.Under()
	if r.steps, err = trace.read(ctx, follower, r.dir); err != nil {
		t.Fatal(err)
	}
	return r
}

var acceptedID = regexp.MustCompile(`"id":"(loss-\d+)"`)

// owed returns the ids of the events that an answer says are accepted.
func owed(c *call) []string {
	if c == nil || c.name != "write" || !bytes.HasPrefix(c.data, []byte("HTTP/1.1 202 ")) {
		return nil
	}
	var ids []string
	for _, m := range acceptedID.FindAllSubmatch(c.data, -1) {
		ids = append(ids, string(m[1]))
	}
	return ids
}

// early returns the events whose 202 began to be written before the sync ended
// that put them on disk, and how many 202s there were. It looks at the order of
// calls only, and opens no database.
func (r *recording) early() (ids []string, answers int) {
	id := regexp.MustCompile(`\{"id":"(loss-\d+)","type"`) // as payloads begin
	unsynced, durable := make(map[string]map[string][]*call), make(map[string]bool)
	for _, s := range r.steps {
		if c := s.begun; c != nil {
			for _, found := range owed(c) {
				if answers++; !durable[found] {
					ids = append(ids, found)
				}
			}
		}
		c := s.ended
		switch {
		case c == nil || c.end == never || c.result < 0:
		case c.name == "pwrite64":
			for _, m := range id.FindAllSubmatch(c.data, -1) {
				if unsynced[c.path] == nil {
					unsynced[c.path] = make(map[string][]*call)
				}
				unsynced[c.path][string(m[1])] = append(unsynced[c.path][string(m[1])], c)
			}
		case c.name == "fsync" || c.name == "fdatasync":
			for found, writes := range unsynced[c.path] {
				if writes[0].end < c.begin {
					durable[found] = true
				}
			}
		}
	}
	return ids, answers
}

// lose cuts the power at so many moments of the recording, half of them right
// after an answer, and returns what was wrong with what was found afterwards. At
// so many more (restarts) the real binary goes on from there.
func (r *recording) lose(ctx context.Context, t *testing.T, random *rand.Rand, cuts, restarts int) (wrong []string, tried int) {
	t.Helper()
	var answers []int
	for i, s := range r.steps {
		if owed(s.begun) != nil {
			answers = append(answers, i)
		}
	}
	at := make(map[int]bool)
	for i := range cuts {
		if i%2 == 0 && len(answers) > 0 {
			at[answers[random.IntN(len(answers))]] = true
		} else {
			at[random.IntN(len(r.steps))] = true
		}
	}
	at[len(r.steps)-1] = true
	// The real binary takes over at few of them, as that takes seconds.
	again := make(map[int]bool)
	for _, i := range random.Perm(len(answers))[:min(len(answers), restarts)] {
		again[answers[i]] = true
		at[answers[i]] = true
	}
	d := newDisk(r.dir, r.before)
	var ids []string
	for i, s := range r.steps {
		d.play(s)
		ids = append(ids, owed(s.begun)...)
		if !at[i] {
			continue
		}
		if again[i] {
			tried++
			f := fates(random)[random.IntN(6)]
			if err := r.restart(ctx, d.after(f), ids); err != nil {
				wrong = append(wrong, fmt.Sprintf("started again after a power loss at step %d, unsynced writes %s, %d events owed: %v\n%s", i, f.name, len(ids), err, r.world.server.LogTail()))
			}
		}
		for _, f := range fates(random) {
			tried++
			if err := r.found(ctx, t, d.after(f), ids); err != nil {
				wrong = append(wrong, fmt.Sprintf("power lost at step %d of %d, unsynced writes %s, %d events owed: %v", i, len(r.steps), f.name, len(ids), err))
			}
		}
	}
	if len(d.unknown) > 0 {
		t.Fatalf("the trace is not whole: %d calls on files that are not there, %s of %s the first", len(d.unknown), d.unknown[0].name, d.unknown[0].path)
	}
	return wrong, tried
}

// found opens what a power loss left, as the next start does, and compares it
// with what is owed.
func (r *recording) found(ctx context.Context, t *testing.T, files map[string][]byte, ids []string) error {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, filepath.Base(r.world.server.File()))
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer os.RemoveAll(dir)
	s, err := sqlite.Open(ctx, sqlite.Options{Path: path, Synchronous: "OFF", Poll: -1})
	if err != nil {
		return err
	}
	defer s.Close()
	return r.compare(ctx, path, ids)
}

func (r *recording) compare(ctx context.Context, path string, ids []string) error {
	db, err := sql.Open("sqlite", path)
	if err != nil {
		return err
	}
	defer db.Close()
	var check string
	if err := db.QueryRowContext(ctx, "PRAGMA integrity_check").Scan(&check); err != nil || check != "ok" {
		return errors.Join(err, fmt.Errorf("integrity check: %s", check))
	}
	rows, err := db.QueryContext(ctx, `SELECT e.key, p.body, (SELECT count(*) FROM deliveries d WHERE d.id > e.id AND d.id <= e.id + e.deliveries AND d.event = e.id)
		FROM events e JOIN payloads p ON p.event = e.id`)
	if err != nil {
		return err
	}
	defer rows.Close()
	there := make(map[string]bool)
	for rows.Next() {
		var key string
		var body []byte
		var deliveries int
		if err := rows.Scan(&key, &body, &deliveries); err != nil {
			return err
		}
		r.world.ledger.mu.Lock()
		e := r.world.ledger.events[key]
		r.world.ledger.mu.Unlock()
		switch {
		case key == "": // of the service's own, that an endpoint fails or has recovered
			continue
		case e == nil:
			return fmt.Errorf("%s is there and was never published", key)
		case deliveries != len(subscribers(e.kind)):
			return fmt.Errorf("%s has %d deliveries, want %d", key, deliveries, len(subscribers(e.kind)))
		case !bytes.Contains(body, []byte(e.data)):
			return fmt.Errorf("%s has another body: %s", key, body)
		}
		there[key] = true
	}
	lost := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return there[id] })
	if len(lost) > 0 {
		return fmt.Errorf("%d events lost, %v the first", len(lost), lost[0])
	}
	return rows.Err()
}

// restart has the real binary take what a power loss left, and waits until all
// that is owed was delivered and the log says so.
func (r *recording) restart(ctx context.Context, files map[string][]byte, ids []string) error {
	w := r.world
	w.t.Helper()
	for _, suffix := range []string{"-wal", "-shm", "-journal", ""} {
		path := w.server.File() + suffix
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if content, ok := files[path]; ok {
			if err := os.WriteFile(path, content, 0o600); err != nil {
				return err
			}
		}
	}
	w.relaunch()
	defer w.server.Kill()
	w.ready()
	w.setStatus(held, "active")
	if err := w.nothingOpen(ctx); err != nil {
		return err
	}
	for _, id := range ids {
		var shown struct {
			Type string `json:"type"`
			Log  []struct {
				State string `json:"state"`
			} `json:"delivery_log"`
		}
		if err := w.api.Call(ctx, http.MethodGet, "/events/"+id, nil, &shown); err != nil {
			return err
		}
		done := 0
		for _, d := range shown.Log {
			if d.State == "succeeded" {
				done++
			}
		}
		if want := len(subscribers(shown.Type)); done != want || want == 0 {
			return fmt.Errorf("%s: %d of %d deliveries succeeded: %v", id, done, want, shown)
		}
	}
	return nil
}

func report(t *testing.T, wrong []string) {
	t.Helper()
	for _, s := range wrong[:min(len(wrong), 10)] {
		t.Error(s)
	}
	if len(wrong) > 10 {
		t.Errorf("and %d more", len(wrong)-10)
	}
}

// TestPowerLoss records what the service under load writes and syncs, forgets
// what was not synced at a cut, and opens the rest: what was answered before the
// cut must be there.
func TestPowerLoss(t *testing.T) {
	needTracer(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 1))
	events, cuts, restarts := 400, 12, 1
	if long {
		events, cuts, restarts = 5000, 300, 6
	}
	politely := []bool{*seed%2 == 0} // the short form does one of the two
	if long {
		politely = []bool{false, true}
	}
	for _, politely := range politely {
		r := record(ctx, t, binary, events, politely)
		early, answers := r.early()
		if len(early) > 0 {
			t.Errorf("%d of %d answers were written before the event was on disk; %s the first", len(early), answers, early[0])
		}
		tally.Count(t, "no 202 is written before a sync that covers its event", answers)
		wrong, tried := r.lose(ctx, t, random, cuts, restarts)
		report(t, wrong)
		tally.Count(t, "what was answered 202 survives a power loss", tried)
		t.Logf("%d calls, %d answers; %d power losses tried, %d with a fault", len(r.steps), answers, tried, len(wrong))

		// The proof must be able to fail: the same run, had its syncs done nothing.
		r.steps = slices.DeleteFunc(r.steps, func(s step) bool { return isSync(s.begun) || isSync(s.ended) })
		early, _ = r.early()
		wrong, _ = r.lose(ctx, t, random, 4, 0)
		if len(early) != answers || len(wrong) == 0 {
			t.Errorf("without the syncs %d of %d answers come too early and %d faults are found: the proof is blind", len(early), answers, len(wrong))
		}
	}
}

func isSync(c *call) bool { return c != nil && (c.name == "fsync" || c.name == "fdatasync") }

// TestPowerLossWhileTheFileIsMade: a start on no file at all, cut anywhere,
// leaves something that the next start takes.
func TestPowerLossWhileTheFileIsMade(t *testing.T) {
	needTracer(t)
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 2))
	trace := traced{filepath.Join(t.TempDir(), "trace")}
	s, err := proof.StartUnder(ctx, proof.Options{Binary: binary, Dir: t.TempDir()}, trace.command()...)
	if err != nil {
		t.Fatal(err)
	}
	follower, err := tracer(s.PID())
	if err != nil {
		t.Fatal(err)
	}
	s.Kill()
	r := &recording{world: &world{server: s, ledger: newLedger()}, dir: filepath.Dir(s.File())}
	if r.steps, err = trace.read(ctx, follower, r.dir); err != nil {
		t.Fatal(err)
	}
	cuts := 10
	if long {
		cuts = 10 * len(r.steps)
	}
	wrong, tried := r.lose(ctx, t, random, cuts, 0)
	report(t, wrong)
	tally.Count(t, "a power loss while the store is made leaves one that opens", tried)
	t.Logf("%d calls; %d power losses tried, %d with a fault", len(r.steps), tried, len(wrong))
}
