package app

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/tally"
)

// long reports whether the long forms were asked for.
func long() bool { return os.Getenv("POSTHORN_TORTURE") == "long" }

// hostile starts a node whose time-outs are a twentieth of the real ones or less,
// unless the long forms were asked for.
func hostile(t *testing.T, more ...string) (s *service, n *node) {
	t.Helper()
	return exposed(t, !long(), more...)
}

// exposed starts a node for a test that looks into it, with the real time-outs or
// shortened ones.
func exposed(t *testing.T, shorten bool, more ...string) (s *service, n *node) {
	t.Helper()
	cfg := loadServe(t, filepath.Join(t.TempDir(), "posthorn.db"), more...)
	s = &service{path: cfg.StorePath, base: "http://" + cfg.Listen, ops: "http://" + cfg.OpsListen, log: &proof.Output{}}
	log, flush := newLogger(s.log, &cfg)
	t.Cleanup(flush)
	n, err := newNode(t.Context(), cfg, log, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, limit := range map[string]struct{ got, most time.Duration }{ // what docs/proofs/access.md promises
		"headers": {n.api.ReadHeaderTimeout, 10 * time.Second}, "a request": {n.api.ReadTimeout, time.Minute},
		"an answer": {n.api.WriteTimeout, time.Minute}, "idleness": {n.api.IdleTimeout, 2 * time.Minute},
	} {
		if limit.got <= 0 || limit.got > limit.most {
			t.Fatalf("%s may take %s, want at most %s", name, limit.got, limit.most)
		}
	}
	if shorten {
		for _, d := range []*time.Duration{&n.api.ReadHeaderTimeout, &n.api.ReadTimeout, &n.api.WriteTimeout, &n.api.IdleTimeout} {
			*d /= 20
		}
		n.api.IdleTimeout /= 3
	}
	if err := n.start(t.Context()); err != nil {
		t.Fatal(n.abandon(err))
	}
	s.stop = sync.OnceValue(n.stop)
	t.Cleanup(func() { s.stop() })
	return s, n
}

func (s *service) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(s.base, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange writes raw bytes and reads the answer to them, and whether the server
// closed then.
func (s *service) exchange(t *testing.T, raw string) (*http.Response, string) {
	t.Helper()
	c := s.dial(t)
	go io.WriteString(c, raw) // the server may stop reading in the midst
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer to %.60q…: %v", raw, err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp, string(body)
}

// ended waits for the server to close the connection and returns after how long.
func ended(t *testing.T, c net.Conn, since time.Time, atMost time.Duration) time.Duration {
	t.Helper()
	c.SetReadDeadline(since.Add(atMost))
	_, err := io.Copy(io.Discard, c)
	if e, ok := err.(net.Error); ok && e.Timeout() {
		t.Fatalf("the connection is still open after %s", atMost)
	}
	return time.Since(since)
}

// servedWithin checks that an ordinary client on a connection of its own is
// answered in time.
func (s *service) servedWithin(t *testing.T, token string, atMost time.Duration) {
	t.Helper()
	began := time.Now()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	r, err := http.NewRequest("GET", s.base+"/v2.3/webhooks/endpoints", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("an ordinary client is kept out: %v", err)
	}
	defer resp.Body.Close()
	if took := time.Since(began); resp.StatusCode != 200 || took > atMost {
		t.Errorf("an ordinary client got %d after %s", resp.StatusCode, took)
	}
}

func head(token, method, path, more string) string {
	return method + " /v2.3/webhooks" + path + " HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer " + token + "\r\n" + more + "\r\n"
}

// Clients that drip their headers are cut off in time, and others do not notice.
func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	s, n := hostile(t)
	token := s.token(t, "acme")
	const clients = 200
	began := time.Now()
	var conns []net.Conn
	for range clients {
		c := s.dial(t)
		io.WriteString(c, "GET /v2.3/webhooks/endpoints HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
		conns = append(conns, c)
		go func() {
			tick := time.NewTicker(n.api.ReadHeaderTimeout / 10)
			defer tick.Stop()
			for range tick.C {
				if _, err := c.Write([]byte("a")); err != nil {
					return
				}
			}
		}()
	}
	for range 20 {
		s.servedWithin(t, token, 5*time.Second)
	}
	for _, c := range conns {
		ended(t, c, began, n.api.ReadHeaderTimeout+10*time.Second)
	}
	tally.Count(t, "a client that is slow is cut off in time, and others are served", clients)
}

// So are clients that drip their bodies; nothing of what they sent takes effect.
func TestSlowBodiesAreCutOff(t *testing.T) {
	t.Parallel()
	s, n := hostile(t)
	token := s.token(t, "acme")
	const clients = 100
	began := time.Now()
	var conns []net.Conn
	for i := range clients {
		c := s.dial(t)
		length := "Content-Length: 100\r\n"
		start := `{"type":"cases.closed","data":{}`
		if i%2 == 1 {
			length, start = "Transfer-Encoding: chunked\r\n", "20\r\n"+start
		}
		io.WriteString(c, head(token, "POST", "/events", "Content-Type: application/json\r\n"+length)+start)
		conns = append(conns, c)
	}
	for range 20 {
		s.servedWithin(t, token, 5*time.Second)
	}
	for _, c := range conns {
		ended(t, c, began, n.api.ReadTimeout+10*time.Second)
	}
	if _, _, body := s.request(t, token, "GET", "/events", "", ""); !strings.Contains(body, `"data":[]`) {
		t.Errorf("half a body took effect: %s", body)
	}
	tally.Count(t, "a client that is slow is cut off in time, and others are served", clients)
}

// A client that never reads its answers is cut off as well.
func TestAnswersThatNobodyReadsAreCutOff(t *testing.T) {
	t.Parallel()
	s, n := hostile(t)
	token := s.token(t, "acme")
	c := s.dial(t).(*net.TCPConn)
	c.SetReadBuffer(4 << 10)
	began := time.Now()
	go func() {
		for range 20_000 { // more than what the kernels buffer
			if _, err := io.WriteString(c, head(token, "GET", "/event-types", "")); err != nil {
				return
			}
		}
	}()
	eventually(t, "a full pipe", func() bool {
		_, ev, _ := n.listener.figures()
		return ev == 0 && time.Since(began) > 100*time.Millisecond
	})
	s.servedWithin(t, token, 5*time.Second)
	eventuallyWithin(t, n.api.WriteTimeout+n.api.IdleTimeout+10*time.Second, "the connection's end", func() bool {
		open, _, _ := n.listener.figures()
		return open == 0
	})
	tally.Count(t, "a client that is slow is cut off in time, and others are served", 1)
}

func eventuallyWithin(t *testing.T, d time.Duration, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(d)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", d, what)
		}
	}
}

func TestOversizedHeadsAreRefused(t *testing.T) {
	t.Parallel()
	s, _ := hostile(t)
	token := s.token(t, "acme")
	cases := 0
	for _, c := range []struct {
		name, raw string
		want      int
	}{
		{"one huge header", head(token, "GET", "/endpoints", "X-Huge: "+strings.Repeat("a", 100<<10)+"\r\n"), 431},
		{"a header without end", head(token, "GET", "/endpoints", "X-Huge: "+strings.Repeat("a", 8<<20)), 431},
		{"many headers", head(token, "GET", "/endpoints", strings.Repeat("A: b\r\n", 20_000)), 431},
		{"a long query", head(token, "GET", "/endpoints?q="+strings.Repeat("a", 10_000), ""), 414},
		{"a long path", head(token, "GET", "/endpoints/"+strings.Repeat("a", 10_000), ""), 414},
		{"a request line without end", "GET /" + strings.Repeat("a", 1<<20), 431},
		{"a long method", strings.Repeat("A", 10_000) + " / HTTP/1.1\r\nHost: localhost\r\n\r\n", 405},
		{"no host", "GET /v2.3/webhooks/endpoints HTTP/1.1\r\n\r\n", 400},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400},
		{"another protocol", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
		{"HTTP/2 by force", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 404},
		{"a space before the colon", "GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400},
		{"a NUL in a header", "GET / HTTP/1.1\r\nHost: localhost\r\nA: \x00\r\n\r\n", 400},
		{"two lengths", head(token, "POST", "/events", "Content-Length: 5\r\nContent-Length: 6\r\n") + "{}{}{}", 400},
		{"a negative length", head(token, "POST", "/events", "Content-Length: -1\r\n"), 400},
		{"a length beyond int64", head(token, "POST", "/events", "Content-Length: 99999999999999999999\r\n"), 400},
		{"an unknown coding", head(token, "POST", "/events", "Transfer-Encoding: gzip, chunked\r\n"), 501},
		{"a chunk that lies", head(token, "POST", "/events", "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n") + "zz\r\n", 400},
		{"a body over the limit", head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 9999999\r\n"), 413},
	} {
		resp, body := s.exchange(t, c.raw)
		cases++
		if resp.StatusCode != c.want {
			t.Errorf("%s: %d %.200s, want %d", c.name, resp.StatusCode, body, c.want)
		}
	}
	s.servedWithin(t, token, 5*time.Second)
	tally.Count(t, "malformed and oversized requests are refused and change nothing", cases)
}

// Requests that are sent without waiting for answers are answered in order, each
// with its own, and what hides in a body is no request.
func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	s, _ := hostile(t)
	token := s.token(t, "acme")
	const requests = 300
	var all strings.Builder
	for i := range requests {
		id := fmt.Sprintf("X-Request-Id: r%d\r\n", i)
		hidden := head(token, "POST", "/events", "X-Request-Id: hidden\r\nContent-Length: 0\r\n")
		switch i % 3 {
		case 0:
			all.WriteString(head(token, "GET", "/endpoints", id))
		case 1:
			all.WriteString(head(token, "POST", "/events", id+fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(hidden))) + hidden)
		case 2:
			all.WriteString(head(token, "GET", "/none", id+fmt.Sprintf("Content-Length: %d\r\n", len(hidden))) + hidden)
		}
	}
	c := s.dial(t)
	go io.WriteString(c, all.String())
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for i := range requests {
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		io.Copy(io.Discard, resp.Body)
		if got, want := resp.Header.Get("X-Request-Id"), fmt.Sprint("r", i); got != want || resp.StatusCode != []int{200, 400, 404}[i%3] {
			t.Fatalf("answer %d is %d of request %s", i, resp.StatusCode, got)
		}
	}
	tally.Count(t, "pipelined requests are answered in order, each with its own answer", requests)
}

// Whoever opens connections and does nothing keeps nobody out, and does not cost
// more than the places there are.
func TestAFloodOfConnectionsKeepsNobodyOut(t *testing.T) {
	const places = 32
	s, n := exposed(t, false, fmt.Sprint("POSTHORN_MAX_CONNECTIONS=", places))
	token := s.token(t, "acme")
	// A request that is under way survives the flood.
	busy := s.dial(t)
	body := `{"type":"cases.closed","data":{}}`
	io.WriteString(busy, head(token, "POST", "/events", fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body)))+body[:10])
	eventually(t, "the request under way", func() bool {
		open, _, _ := n.listener.figures()
		return open == 1 && n.listener.idle() == 0
	})
	flood := 20 * places
	for i := range flood {
		c := s.dial(t)
		switch i % 3 {
		case 1:
			io.WriteString(c, "GET / HT")
		case 2:
			io.WriteString(c, head(token, "GET", "/event-types/cases.closed", "")) // answered, then idle
		}
		if i%64 == 0 {
			s.servedWithin(t, token, 5*time.Second)
		}
	}
	s.servedWithin(t, token, 5*time.Second)
	open, evicted, refused := n.listener.figures()
	if open > places || evicted < flood-places || refused != 0 {
		t.Errorf("%d connections are open, %d gave their place, %d were refused", open, evicted, refused)
	}
	io.WriteString(busy, body[10:])
	resp, err := http.ReadResponse(bufio.NewReader(busy), nil)
	if err != nil || resp.StatusCode != http.StatusAccepted {
		t.Errorf("the request under way got %v, %v", resp, err)
	}
	if _, figures := get(t, s.ops+"/metrics"); !strings.Contains(figures, "posthorn_connections_evicted_total ") {
		t.Error("the metrics do not tell of the flood")
	}
	tally.Count(t, "a flood of connections keeps no ordinary client out", flood)
}

// When requests are under way on all connections, and nobody has more of them than
// another, a new one is closed, and those go on.
func TestConnectionsInUseAreNotClosedForNewOnes(t *testing.T) {
	const places = 16
	s, n := exposed(t, false, fmt.Sprint("POSTHORN_MAX_CONNECTIONS=", places))
	var conns []net.Conn
	var token string
	for i := range places {
		token = s.token(t, fmt.Sprint("tenant", i))
		c := s.dial(t)
		io.WriteString(c, head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 33\r\n"))
		conns = append(conns, c)
	}
	eventually(t, "all places in use", func() bool {
		requests, parties := n.listener.requests.Taken()
		return requests == places && parties == places
	})
	for range 10 {
		ended(t, s.dial(t), time.Now(), 5*time.Second)
	}
	for _, c := range conns {
		io.WriteString(c, `{"type":"cases.closed","data":{}}`)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusAccepted {
			t.Fatalf("a request under way got %v, %v", resp, err)
		}
	}
	if _, evicted, refused := n.listener.figures(); evicted != 0 || refused != 10 {
		t.Errorf("%d gave their place, %d were refused", evicted, refused)
	}
	s.servedWithin(t, token, 5*time.Second)
	tally.Count(t, "a flood of connections keeps no ordinary client out", 10)
}

// idle is how many connections wait for a request.
func (l *connections) idle() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, by := range l.parties {
		n += by.in[isWaiting].Len()
	}
	return n
}

// Idle connections cost little, and go after a while.
func TestIdleConnectionsAreCheapAndGo(t *testing.T) {
	s, n := hostile(t)
	token := s.token(t, "acme")
	const clients = 500
	before := heap()
	for range clients {
		c := s.dial(t)
		io.WriteString(c, head(token, "GET", "/event-types/cases.closed", ""))
		resp, err := http.ReadResponse(bufio.NewReaderSize(c, 1024), nil)
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
	}
	if each := (heap() - before) / clients; each > 64<<10 {
		t.Errorf("an idle connection costs %d bytes", each)
	} else {
		t.Logf("an idle connection costs about %d bytes, the client's side included", each)
	}
	s.servedWithin(t, token, 5*time.Second)
	eventuallyWithin(t, n.api.IdleTimeout+10*time.Second, "idle connections gone", func() bool {
		open, _, _ := n.listener.figures()
		return open == 0
	})
	tally.Count(t, "a flood of connections keeps no ordinary client out", clients)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// Random bytes and random damage to good requests are refused; the service goes on.
func TestGarbageIsRefused(t *testing.T) {
	t.Parallel()
	s, _ := hostile(t)
	token := s.token(t, "acme")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	good := []byte(head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 33\r\nConnection: close\r\n") + `{"type":"cases.closed","data":{}}`)
	tries := 500
	if long() {
		tries = 20_000
	}
	for range tries {
		raw := bytes.Clone(good)
		for range 1 + random.IntN(8) {
			switch at := random.IntN(len(raw)); random.IntN(3) {
			case 0:
				raw[at] = byte(random.Uint32())
			case 1:
				raw = append(raw[:at], raw[min(len(raw), at+random.IntN(20)):]...)
			case 2:
				raw = append(raw[:at:at], append([]byte(strings.Repeat(string(rune(random.IntN(256))), random.IntN(40))), raw[at:]...)...)
			}
			if len(raw) == 0 {
				raw = []byte{0}
			}
		}
		c := s.dial(t).(*net.TCPConn)
		c.Write(raw)
		c.CloseWrite()
		c.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer, _ := io.ReadAll(c)
		c.Close()
		// A sender that has closed its half counts as gone while its event or its
		// token's look-up waits.
		gone := bytes.Contains(answer, []byte("The request was broken off"))
		if bytes.HasPrefix(answer, []byte("HTTP/1.1 50")) && !gone && !bytes.HasPrefix(answer, []byte("HTTP/1.1 501")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 505")) {
			t.Fatalf("%q is answered %.300s", raw, answer)
		}
		if bytes.Contains(answer, []byte(token)) {
			t.Fatalf("the answer to %q shows the token", raw)
		}
	}
	s.servedWithin(t, token, 5*time.Second)
	for _, bad := range []string{`"level":"ERROR"`, "panic"} {
		if strings.Contains(s.log.String(), bad) {
			t.Errorf("the log has %s:\n%s", bad, s.log)
		}
	}
	tally.Count(t, "malformed and oversized requests are refused and change nothing", tries)
}

// A token's rate holds over the wire: 429 with the time to wait.
func TestATokensRateIsAnswered429(t *testing.T) {
	s, _ := hostile(t, "POSTHORN_TOKEN_RATE=5")
	token, other := s.token(t, "acme"), s.token(t, "other")
	var refused int
	for range 40 {
		status, h, body := s.request(t, token, "GET", "/endpoints", "", "")
		switch {
		case status == http.StatusTooManyRequests && h.Get("Retry-After") == "1" && strings.Contains(body, "urn:posthorn:problem:rate_limited"):
			refused++
		case status != 200:
			t.Fatalf("%d %v %s", status, h, body)
		}
	}
	if refused < 20 {
		t.Errorf("%d of 40 requests at once were refused", refused)
	}
	if status, _, _ := s.request(t, other, "GET", "/endpoints", "", ""); status != 200 {
		t.Errorf("another token got %d", status)
	}
	tally.Count(t, "a token's requests stay below its rate, whatever others do", 41)
}
