package cluster

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// whoIsWrong is whose clock is shifted.
type whoIsWrong string

const (
	theNode  whoIsWrong = "the only node, on SQLite"
	oneNode  whoIsWrong = "one node of two"
	allNodes whoIsWrong = "all nodes"
	database whoIsWrong = "the database"
)

// scene is an installation of which a clock is wrong, and its receivers.
type scene struct {
	*testing.T
	who   whoIsWrong
	by    time.Duration
	nodes []*proof.Server
	walls []wall
	file  string // of the database's clock
	url   string // of the database
	api   []proof.API
	read  *http.Client

	mu       sync.Mutex
	failing  bool
	came     map[string][]arrival // by event
	attempts map[string]int       // by path
}

type arrival struct {
	at    time.Time
	stamp time.Time // webhook-timestamp
	ok    bool
}

// TestAWrongClockHarmsNothing shifts clocks under the running service: nothing is
// lost, nothing comes early, nobody is shut for longer than its wait, and nothing
// disappears; while it is so, and after it was set right.
func TestAWrongClockHarmsNothing(t *testing.T) {
	drivesOnly(t)
	t.Parallel()
	const day = 24 * time.Hour
	type row struct {
		who   whoIsWrong
		by    time.Duration
		forth bool // and back, again and again
	}
	rows := []row{{theNode, 32 * day, false}, {theNode, -time.Hour, true}, {oneNode, time.Hour, false}, {allNodes, -32 * day, false}, {database, 32 * day, true}}
	if *long {
		rows = nil
		for _, who := range []whoIsWrong{theNode, oneNode, allNodes, database} {
			for _, by := range []time.Duration{time.Hour, -time.Hour, day, -day, 32 * day, -32 * day} {
				rows = append(rows, row{who, by, false}, row{who, by, true})
			}
		}
	}
	for _, r := range rows {
		name := fmt.Sprint(r.who, " ", r.by)
		if r.forth {
			name += " and back"
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newScene(t, r.who)
			s.by = r.by
			s.play(r.forth)
		})
	}
}

func newScene(t *testing.T, who whoIsWrong) *scene {
	s := &scene{T: t, who: who, came: map[string][]arrival{}, attempts: map[string]int{}, read: &http.Client{Timeout: 10 * time.Second}, failing: true}
	made, err := shiftedBinary()
	if err != nil {
		t.Fatal(err)
	}
	receiver := httptest.NewServer(http.HandlerFunc(s.receive))
	t.Cleanup(receiver.Close)
	address, nodes, keys := "", 1, ""
	switch who {
	case oneNode, allNodes:
		address, nodes = pgtest.Database(t, ""), 2
	case database:
		address, nodes = s.fakedDatabase(), 2
	}
	s.url = address
	for range nodes {
		w := newWall(t)
		n, err := proof.StartUnder(t.Context(), proof.Options{Binary: made, Dir: t.TempDir(), Database: address, Keys: keys,
			Args: []string{"--retry-schedule", "2s,40m,40m", "--retry-jitter", "0"}}, w.under()...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.Kill)
		keys = n.Keys()
		s.nodes, s.walls = append(s.nodes, n), append(s.walls, w)
	}
	token, err := s.nodes[0].Token(t.Context(), "acme", "webhooks:read", "webhooks:write", "events:publish")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range s.nodes {
		s.api = append(s.api, proof.API{URL: n.URL(), Token: token, HTTP: s.read})
	}
	for path, kind := range map[string]string{"ok": "cases.created", "failing": "cases.closed", "broken": "cases.archived"} {
		if _, err := s.api[0].CreateEndpoint(t.Context(), receiver.URL+"/"+path, "active", kind); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// fakedDatabase is a server of its own whose clock can be moved.
func (s *scene) fakedDatabase() string {
	pgtest.Missing(s.T)
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		if os.Getenv("POSTHORN_CI") != "" {
			s.Fatal("there is no libfaketime, and CI must have it: apt-get install faketime")
		}
		s.Skip("there is no libfaketime (apt-get install faketime): a database whose clock is wrong is not tested")
	}
	dir, err := os.MkdirTemp("", "posthorn-clock") // the server's user reads it
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { os.RemoveAll(dir) })
	s.file = filepath.Join(dir, "faketime")
	s.setDatabase(0)
	db, err := pgtest.StartIn([]string{"LD_PRELOAD=" + found[0], "FAKETIME_TIMESTAMP_FILE=" + s.file, "FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"})
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() {
		if err := db.Stop(); err != nil {
			s.Error(err)
		}
	})
	return db.URL()
}

func (s *scene) setDatabase(by time.Duration) {
	text := fmt.Sprintf("%+d\n", int64(by/time.Second))
	if err := os.WriteFile(s.file+".new", []byte(text), 0o644); err != nil {
		s.Fatal(err)
	}
	if err := os.Rename(s.file+".new", s.file); err != nil {
		s.Fatal(err)
	}
}

// shift makes the clocks wrong, or right with 0.
func (s *scene) shift(by time.Duration) {
	switch s.who {
	case database:
		s.setDatabase(by)
	case allNodes:
		for _, w := range s.walls {
			w.set(s.T, by)
		}
	default:
		s.walls[0].set(s.T, by)
	}
}

// receive is all receivers. What fails is refused until it is well.
func (s *scene) receive(rw http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // what does not come is not acknowledged
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/")
	s.attempts[path]++
	seconds, _ := strconv.ParseInt(r.Header.Get("webhook-timestamp"), 10, 64)
	ok := path == "ok" || path == "broken" && !s.failing
	id := r.Header.Get("webhook-id")
	s.came[id] = append(s.came[id], arrival{time.Now(), time.Unix(seconds, 0), ok})
	if !ok {
		rw.WriteHeader(http.StatusInternalServerError)
	}
}

// publish publishes through any node that takes it.
func (s *scene) publish(kind, id string, at time.Time) {
	s.Helper()
	body := fmt.Sprintf(`{"type":%q,"data":{},"id":%q}`, kind, id)
	if !at.IsZero() {
		body = fmt.Sprintf(`{"type":%q,"data":{},"id":%q,"deliver_at":%q}`, kind, id, at.UTC().Format(time.RFC3339))
	}
	s.until("it is published", func() bool {
		for _, api := range s.api {
			if api.Call(s.Context(), http.MethodPost, "/events", []byte(body), nil) == nil {
				return true
			}
		}
		return false
	})
}

// publishBySQL publishes in the database's outbox.
func (s *scene) publishBySQL(id string) {
	s.Helper()
	db, err := pgx.Connect(s.Context(), s.url)
	if err != nil {
		s.Fatal(err)
	}
	defer db.Close(context.WithoutCancel(s.Context()))
	if _, err := db.Exec(s.Context(), `SELECT posthorn.publish('acme', 'cases.created', '{}', id => $1)`, id); err != nil {
		s.Fatal(err)
	}
}

func (s *scene) until(what string, holds func() bool) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), 2*time.Minute)
	defer cancel()
	if err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { return holds(), nil }); err != nil {
		for _, n := range s.nodes {
			s.Logf("a node:\n%s", n.LogTail())
		}
		s.Fatalf("waited in vain until %s", what)
	}
}

// delivered reports whether so many events of a name were acknowledged.
func (s *scene) delivered(name string, n int) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range n {
			list := s.came[fmt.Sprint(name, i)]
			if len(list) == 0 || !list[len(list)-1].ok {
				return false
			}
		}
		return true
	}
}

// noticed reports whether each node says what is wrong, and only one that is wrong is
// not ready.
func (s *scene) noticed() bool {
	for i := range s.nodes {
		want, words := http.StatusOK, ""
		switch {
		case s.who == theNode:
			words = "this machine's clock has jumped by"
		case s.who == oneNode && i == 0:
			want, words = http.StatusServiceUnavailable, "not what the other nodes' are"
		case s.who == allNodes, s.who == database:
			words = "the database's clock is"
		}
		if code, text := readyz(s.read, s.nodes[i]); code != want || !strings.Contains(text, words) {
			return false
		}
	}
	return true
}

func (s *scene) allReady() bool {
	for i := range s.nodes {
		if code, _ := readyz(s.read, s.nodes[i]); code != http.StatusOK {
			return false
		}
	}
	return true
}

func (s *scene) play(forth bool) {
	for i := range 10 {
		s.publish("cases.created", fmt.Sprint("before", i), time.Time{})
	}
	s.publish("cases.closed", "failing", time.Time{})
	soon, far := time.Now().Add(25*time.Second), time.Now().Add(40*time.Minute)
	s.publish("cases.created", "soon", soon)
	s.publish("cases.created", "far", far)
	s.until("what needs no wait is delivered", s.delivered("before", 10))
	s.until("two attempts failed", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.attempts["failing"] == 2 })

	s.shift(s.by)
	s.until("it is noticed", s.noticed)
	for i := range 10 {
		s.publish("cases.archived", fmt.Sprint("broken", i), time.Time{})
		s.publish("cases.created", fmt.Sprint("during", i), time.Time{})
	}
	if s.who == database { // whose clock dates what is published there
		s.publishBySQL("sql0")
		s.until("what was published by SQL is delivered", s.delivered("sql", 1))
	}
	s.until("the service goes on", s.delivered("during", 10))
	s.until("the breaker opens", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.attempts["broken"] >= 5 })
	if forth {
		for range 3 {
			s.shift(0)
			s.until("all are ready", s.allReady)
			s.shift(s.by)
			s.until("it is noticed again", s.noticed)
		}
	}
	s.intact("while the clock is wrong")

	s.shift(0)
	s.until("all are ready", s.allReady)
	s.mu.Lock()
	s.failing = false
	s.mu.Unlock()
	if !forth { // a restart, too, leaves nobody shut
		if _, err := s.nodes[0].Stop(time.Minute); err != nil {
			s.Fatal(err)
		}
		if err := s.nodes[0].Launch(); err != nil {
			s.Fatal(err)
		}
		s.until("the node is ready again", s.allReady)
	}
	for i := range 10 {
		s.publish("cases.created", fmt.Sprint("after", i), time.Time{})
	}
	s.until("all goes on", s.delivered("after", 10))
	s.until("what is due soon is delivered", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.came["soon"]) > 0 })
	s.until("the endpoint is open again", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		for i := range 10 {
			if list := s.came[fmt.Sprint("broken", i)]; len(list) > 0 && list[len(list)-1].ok {
				return true
			}
		}
		return false
	})
	s.intact("when it is right again")

	s.mu.Lock()
	defer s.mu.Unlock()
	if early := soon.Truncate(time.Second).Sub(s.came["soon"][0].at); early > time.Second {
		s.Errorf("an event came %s before its time", early)
	}
	if n := len(s.came["far"]); n != 0 {
		s.Errorf("an event for later came %d times", n)
	}
	if n := s.attempts["failing"]; n != 2 {
		s.Errorf("an event that waits for 40 minutes was attempted %d times", n)
	}
	shown := false // the machine's time, by a signature
	for id, list := range s.came {
		acknowledged := 0
		for _, a := range list {
			if a.ok {
				acknowledged++
			}
			shown = shown || (a.stamp.Sub(a.at)-s.by).Abs() < time.Minute
			if off := a.stamp.Sub(a.at); s.who != theNode && s.who != allNodes && off.Abs() > time.Minute {
				s.Errorf("%s is signed with a time that is %s off", id, off)
			}
		}
		if acknowledged > 1 {
			s.Errorf("%s was delivered %d times", id, acknowledged)
		}
	}
	if s.who == theNode && !shown {
		s.Error("no signature shows the machine's time")
	}
}

// intact checks that no event has gone and none has expired.
func (s *scene) intact(when string) {
	s.Helper()
	ids := []string{"soon", "far", "failing"}
	for i := range 10 {
		ids = append(ids, fmt.Sprint("before", i), fmt.Sprint("broken", i), fmt.Sprint("during", i))
	}
	for _, id := range ids {
		var list []struct {
			State string `json:"state"`
		}
		var err error
		for _, api := range s.api {
			if err = api.Call(s.Context(), http.MethodGet, "/deliveries?event="+id, nil, &list); err == nil {
				break
			}
		}
		if err != nil || len(list) != 1 || list[0].State == "expired" || list[0].State == "failed" {
			s.Errorf("%s: %s: %+v, %v", when, id, list, err)
		}
	}
}
