package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// movesID is how ids of events begin that are published for endpoints that move: the
// ledger knows nothing of them.
const movesID = "m-"

const (
	onIll     = "what any of two nodes answered 202 arrives once, whatever single statements of theirs meet in a database that is ill"
	overtaken = "after an answered DELETE or change of its url, nothing is sent to an endpoint as it was"
)

// TestClusterOnAnIllDatabase holds, delays, drops and silences single statements of
// two nodes at random, before the server acts and after it did, while events are
// published and endpoints change.
func TestClusterOnAnIllDatabase(t *testing.T) {
	t.Parallel()
	lasts, limit := 15*time.Second, 3*time.Minute
	if *long {
		lasts = 40 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the run took longer than %s", limit))
	defer cancel()
	t.Logf("-seed %d", *seed)
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 2)
	w.takes = 20 * time.Millisecond
	m := newMovers(w)
	p := w.startLoad(ctx, *rate)
	w.accepting(p, 100)
	m.start()
	var wg sync.WaitGroup
	stop := make(chan struct{})
	strikes := make([]int, 2*len(w.wires))
	for i := range strikes { // two statements of each node at a time
		random := rand.New(rand.NewPCG(*seed, uint64(i)+10))
		wg.Go(func() { strikes[i] = w.sicken(i/2, random, stop) })
	}
	w.pass(lasts)
	close(stop)
	wg.Wait()
	for node := range w.nodes {
		w.ready(node)
	}
	w.accepting(p, 100)
	if err := p.finish(); err != nil {
		t.Fatal(err)
	}
	moves := m.finish()
	w.settle(time.Minute)
	s := w.judge(p)
	t.Logf("%v statements were struck; %d endpoints moved or went, %d requests to them", strikes, moves, m.requests)
	n := 0
	for _, s := range strikes {
		n += s
	}
	if n < 10 || moves < 3 || m.requests == 0 {
		t.Error("too little was done: nothing is shown")
	}
	tally.Count(t, onIll, s.deliveries)
	tally.Count(t, overtaken, moves)
}

// sick are the statements that are struck, each with what it is about; "" is any.
var sick = []ill.Fault{
	{},
	{Statement: "INSERT INTO events"},
	{Statement: "COMMIT"},
	{Statement: "COMMIT", Within: "WITH gone AS"},                   // results
	{Statement: "COMMIT", Within: "UPDATE due d SET run = CASE"},    // claims
	{Statement: "COMMIT", Within: "UPDATE due SET run = -1"},        // giving back
	{Statement: "COMMIT", Within: "UPDATE endpoints"},               // changes
	{Statement: "FROM due d JOIN endpoint_health"},                  // results, read
	{Statement: "UPDATE runs SET beats"},                            // the lease
	{Statement: "SELECT value FROM meta WHERE key = 'changes'"},     // the look at the switches
	{Statement: "FROM endpoints WHERE id ="},                        // targets
	{Statement: "FROM lanes l JOIN endpoints p"},                    // owned lanes
	{Statement: "FROM due WHERE run = 0"},                           // claims, read
	{Statement: "SELECT value FROM meta WHERE key = 'sending_off'"}, // the brake
}

// sicken strikes statements of a node until it is to stop, one after the other, and
// returns how many it struck. All of them are over when it returns.
func (w *world) sicken(node int, random *rand.Rand, stop chan struct{}) (struck int) {
	for {
		f := sick[random.IntN(len(sick))]
		f.Nth = 1 + random.IntN(3)
		f.At, f.Do = ill.Moment(random.IntN(2)), ill.Act(random.IntN(4))
		f.For = time.Duration(random.IntN(3000)) * time.Millisecond
		keep := time.Duration(random.IntN(6000)) * time.Millisecond // of a Hold and a Silence
		end := w.ledger.begin(node, fmt.Sprintf("%+v", f))
		s := w.wires[node].Strike(f)
		happened := false
		select {
		case <-s.Struck():
			happened = true
			struck++
		case <-time.After(time.Second):
		case <-stop:
		}
		s.Disarm()
		if happened {
			select {
			case <-time.After(min(keep, f.For+time.Second)):
			case <-stop:
			}
		}
		s.Release()
		end()
		select {
		case <-stop:
			return struck
		default:
		}
	}
}

// movers are endpoints, one of each tenant at a time, whose url changes and that are
// deleted, while events for them are published.
type movers struct {
	w    *world
	stop chan struct{}
	wg   sync.WaitGroup
	url  string

	mu       sync.Mutex
	over     map[string]time.Time // paths, by when the answer came after which nothing is sent there
	moves    int
	requests int
}

// allowed is how long after an answer something may be sent by what was true before: a node that
// cannot see its database goes on for two seconds; the rest is the machine's.
const allowed = 2*time.Second + 500*time.Millisecond

func newMovers(w *world) *movers {
	m := &movers{w: w, stop: make(chan struct{}), over: map[string]time.Time{}}
	receiver := httptest.NewServer(http.HandlerFunc(m.receive))
	w.t.Cleanup(func() { receiver.CloseClientConnections(); receiver.Close() })
	m.url = receiver.URL
	return m
}

func (m *movers) receive(_ http.ResponseWriter, r *http.Request) {
	came := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests++
	if since, ok := m.over[r.URL.Path]; ok && came.Sub(since) > allowed {
		m.w.ledger.mu.Lock()
		defer m.w.ledger.mu.Unlock()
		m.w.ledger.fault("%s got a request %s after the answer that moved it", r.URL.Path, came.Sub(since))
	}
}

// gone notes that nothing is sent to a path any more.
func (m *movers) gone(path string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.over[path] = time.Now()
	m.moves++
}

func (m *movers) start() {
	for tenant := range tenants {
		m.wg.Go(func() { m.move(tenant) })
		m.wg.Go(func() { m.publish(tenant) })
	}
}

func (m *movers) finish() (moves int) {
	close(m.stop)
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moves
}

// pause waits and reports whether to go on.
func (m *movers) pause(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-m.stop:
		return false
	case <-m.w.ctx.Done():
		return false
	}
}

// publish makes events for the endpoints that move. What is refused is not missed.
func (m *movers) publish(tenant int) {
	for n := 0; m.pause(20 * time.Millisecond); n++ {
		_ = m.w.api(n%len(m.w.nodes), tenant).Call(m.w.ctx, http.MethodPost, "/events", fmt.Appendf(nil, `{"id":"%s%x-%d-%d","type":"assignments.contacts.updated","data":{}}`, movesID, m.w.seed, tenant, n), nil)
	}
}

// move makes an endpoint, leads it elsewhere and deletes it, again and again. The
// other node is asked each time, or the next one until it answers. Each request
// names another path: one without an answer may be done late.
func (m *movers) move(tenant int) {
	asked, path := 0, ""
	next := func() string {
		asked++
		path = fmt.Sprintf("/%d/%d", tenant, asked)
		return m.url + path
	}
	for n := 0; ; n++ {
		id := ""
		if !m.done(n, func(node int) error {
			made, err := m.w.api(node, tenant).CreateEndpoint(m.w.ctx, next(), "active", "assignments.contacts.*")
			id = made.ID
			return err
		}) {
			return
		}
		for i := range 2 {
			former := path
			if !m.pause(300*time.Millisecond) || !m.done(n+i, func(node int) error {
				return m.w.api(node, tenant).Call(m.w.ctx, http.MethodPatch, "/endpoints/"+id, fmt.Appendf(nil, `{"url":"%s"}`, next()), nil)
			}) {
				return
			}
			m.gone(former)
		}
		if !m.pause(300*time.Millisecond) || !m.done(n, func(node int) error {
			err := m.w.api(node, tenant).Call(m.w.ctx, http.MethodDelete, "/endpoints/"+id, nil, nil)
			if s, ok := errors.AsType[*proof.Status](err); ok && s.Code == http.StatusNotFound {
				return nil // a call before, without an answer, did it
			}
			return err
		}) {
			return
		}
		m.gone(path)
	}
}

// done asks nodes until one answers that it did what call wants, and reports whether
// one did. An answer that did not come is no answer: what it was about may be done later.
func (m *movers) done(node int, call func(node int) error) bool {
	for ; ; node++ {
		err := call(node % len(m.w.nodes))
		if err == nil {
			return true
		}
		status, answered := errors.AsType[*proof.Status](err)
		_, late := errors.AsType[net.Error](err)
		if answered && status.Code != http.StatusServiceUnavailable || !answered && !late && m.w.ctx.Err() == nil {
			m.w.ledger.mu.Lock()
			m.w.ledger.fault("a change of an endpoint ended with %v", err)
			m.w.ledger.mu.Unlock()
			return false
		}
		if !m.pause(50 * time.Millisecond) {
			return false
		}
	}
}
