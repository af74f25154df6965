package app

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/internal/tally"
	"github.com/posthorn/posthorn/internal/web"
)

// writeThenRead sends a request as a plain client does, all of it before it looks for
// an answer, and reads to the end.
func writeThenRead(c net.Conn, head string, body io.Reader) (*http.Response, string, error) {
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	if _, err := io.WriteString(c, head); err != nil {
		return nil, "", fmt.Errorf("writing the head: %w", err)
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{c}, body, make([]byte, 256<<10)); err != nil {
		return nil, "", fmt.Errorf("writing the body: %w", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return nil, "", fmt.Errorf("reading the answer: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp, string(text), err
}

// zeros is a body of n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(endless{}, n) }

type endless struct{}

func (endless) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// chunked is the body in chunks.
func chunked(body io.Reader) io.Reader {
	r, w := io.Pipe()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := io.ReadFull(body, buf)
			if n > 0 {
				fmt.Fprintf(w, "%x\r\n", n)
				w.Write(buf[:n])
				io.WriteString(w, "\r\n")
			}
			if err != nil {
				io.WriteString(w, "0\r\n\r\n")
				w.Close()
				return
			}
		}
	}()
	return r
}

// refusals are requests whose bodies nobody reads to the end, and what they are told.
func refusals(token string) []struct {
	method, path, token, headers string
	status                       int
} {
	return []struct {
		method, path, token, headers string
		status                       int
	}{
		{"POST", "/events", "pht_wrong", "Content-Type: application/json\r\n", 401},
		{"PATCH", "/endpoints/wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "", "Content-Type: application/json\r\n", 401},
		{"POST", "/nothing/here", token, "", 404},
		{"PUT", "/events", token, "Content-Type: application/json\r\n", 405},
		{"POST", "/events", token, "Content-Type: application/json\r\nAccept: text/html\r\n", 406},
		{"POST", "/events", token, "Content-Type: application/json\r\n", 413},
		{"POST", "/events/batch", token, "Content-Type: application/json\r\n", 413},
		{"POST", "/endpoints", token, "Content-Type: text/plain\r\n", 415},
		{"POST", "/endpoints", token, "Content-Type: application/json\r\nContent-Encoding: gzip\r\n", 415},
		{"POST", "/events", token, "Content-Type: application/json\r\nContent-Type: text/plain\r\n", 400},
		{"POST", "/events?colour=red", token, "Content-Type: application/json\r\n", 400},
		{"GET", "/endpoints", token, "", 200}, // its body is not read either
	}
}

// A client that writes a large body to who refuses it, and reads only then, sees the
// status and the problem, and no reset: over TCP and TLS, of known and of unknown
// length, and if it said Expect and did not wait.
func TestWhoIsStillWritingSeesTheRefusal(t *testing.T) {
	t.Parallel()
	plain, _ := exposed(t, false)
	secure, _, _ := overTLS(t)
	const size = 10 << 20
	var cases atomic.Int64
	var all sync.WaitGroup
	defer all.Wait()
	for _, over := range []struct {
		name string
		s    *service
		dial func() (net.Conn, error)
	}{
		{"TCP", plain, func() (net.Conn, error) { return net.Dial("tcp", strings.TrimPrefix(plain.base, "http://")) }},
		{"TLS", secure, func() (net.Conn, error) {
			return tls.Dial("tcp", strings.TrimPrefix(secure.base, "https://"), &tls.Config{InsecureSkipVerify: true})
		}},
	} {
		token := over.s.token(t, "acme")
		for _, r := range refusals(token) {
			all.Go(func() {
				for _, form := range []struct {
					headers string
					body    io.Reader
				}{
					{fmt.Sprintf("Content-Length: %d\r\n", size), zeros(size)},
					{"Transfer-Encoding: chunked\r\n", chunked(zeros(size))},
					{fmt.Sprintf("Expect: 100-continue\r\nContent-Length: %d\r\n", size), zeros(size)},
				} {
					what := fmt.Sprintf("%s %s over %s with %q", r.method, r.path, over.name, form.headers)
					c, err := over.dial()
					if err != nil {
						t.Errorf("%s: %v", what, err)
						return
					}
					resp, text, err := writeThenRead(c, head(r.token, r.method, r.path, r.headers+form.headers), form.body)
					if err != nil {
						t.Errorf("%s: %v", what, err)
					} else if resp.StatusCode != r.status || r.status >= 400 && !strings.Contains(text, `"urn:posthorn:problem:`) {
						t.Errorf("%s: %d %s, want %d", what, resp.StatusCode, text, r.status)
					}
					c.Close()
					cases.Add(1)
				}
			})
		}
	}
	all.Wait()
	tally.Count(t, "who is still writing a large body sees why it is refused, and no reset", int(cases.Load()))
}

// However large it is.
func TestWhoIsWritingAGigabyteSeesTheRefusal(t *testing.T) {
	t.Parallel()
	s, _ := exposed(t, false)
	resp, text, err := writeThenRead(s.dial(t), head("pht_wrong", "POST", "/events", "Content-Type: application/json\r\nContent-Length: 1073741824\r\n"), zeros(1<<30))
	if err != nil || resp.StatusCode != 401 || !strings.Contains(text, "unauthorized") {
		t.Errorf("%v %s %v, want 401", resp, text, err)
	}
}

// Every status is seen, whoever gives it, also by the libraries that people use.
func TestEveryRefusalIsSeen(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newConnections(ln, 100)
	server := &http.Server{ConnContext: l.remember, Handler: marking(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var status int
		fmt.Sscanf(r.URL.Path, "/%d", &status)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(status)
		fmt.Fprintf(w, `{"status":%d}`, status)
	}))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close(); l.closeAll() })
	var all sync.WaitGroup
	defer all.Wait()
	for _, status := range []int{200, 400, 401, 403, 404, 405, 413, 415, 421, 429, 500, 503} {
		all.Go(func() { seen(t, ln.Addr().String(), status) })
	}
}

// seen has a status answered to a large body.
func seen(t *testing.T, addr string, status int) {
	const size = 10 << 20
	want := fmt.Sprintf(`{"status":%d}`, status)
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if _, text, err := writeThenRead(c, fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", status, size), zeros(size)); err != nil || text != want {
		t.Errorf("a plain client of %d: %s, %v", status, text, err)
	}
	fresh := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := fresh.Post(fmt.Sprintf("http://%s/%d", addr, status), "application/json", zeros(size))
	if err != nil {
		t.Errorf("Go's client of %d: %v", status, err)
		return
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != want || resp.StatusCode != status {
		t.Errorf("Go's client of %d: %s %s, %v", status, resp.Status, text, err)
	}
}

func TestCurlSeesTheRefusal(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("POSTHORN_CI") != "" {
			t.Fatal(err)
		}
		t.Skip("curl is not installed")
	}
	s, _, _ := overTLS(t)
	token := s.token(t, "acme")
	for _, version := range []string{"--http1.1", "--http2"} {
		for _, r := range refusals(token) {
			if strings.Count(r.headers, "Content-Type") > 1 || version == "--http2" && r.status < 400 {
				continue // curl sends one; it takes the end of a stream for a fault if it was not refused
			}
			for _, more := range []string{"Expect: 100-continue", "Expect:", "Transfer-Encoding: chunked"} {
				if version == "--http2" && strings.HasPrefix(more, "Transfer") {
					continue // has no meaning there
				}
				args := []string{"-sk", "-m", "60", version, "-X", r.method, "--data-binary", "@-", "-w", " %{http_code}", "-H", "Authorization: Bearer " + r.token, "-H", more}
				for line := range strings.SplitSeq(strings.TrimSuffix(r.headers, "\r\n"), "\r\n") {
					args = append(args, "-H", line)
				}
				cmd := exec.Command("curl", append(args, s.base+"/v2.3/webhooks"+r.path)...)
				cmd.Stdin = zeros(10 << 20)
				out, err := cmd.Output()
				if err != nil || !bytes.HasSuffix(out, fmt.Append(nil, " ", r.status)) {
					t.Errorf("%s %s %s with %s: %s, %v, want %d", version, r.method, r.path, more, out, err, r.status)
				}
			}
		}
	}
}

// Over HTTP/2 the stream ends with the answer, and the connection is used on.
func TestWhoIsStillWritingOverHTTP2SeesTheRefusal(t *testing.T) {
	t.Parallel()
	s, _, client := overTLS(t)
	token, c := s.token(t, "acme"), client()
	var all sync.WaitGroup
	defer all.Wait()
	for _, size := range []int64{10 << 20, 1 << 30} {
		for _, r := range refusals(token) {
			all.Go(func() {
				req, err := http.NewRequest(r.method, s.base+"/v2.3/webhooks"+r.path, zeros(size))
				if err != nil {
					t.Error(err)
					return
				}
				req.ContentLength = size
				req.Header.Set("Authorization", "Bearer "+r.token)
				for line := range strings.SplitSeq(strings.TrimSuffix(r.headers, "\r\n"), "\r\n") {
					if name, value, ok := strings.Cut(line, ": "); ok {
						req.Header.Add(name, value)
					}
				}
				resp, err := c.Do(req)
				if err != nil {
					t.Errorf("%s %s of %d bytes: %v", r.method, r.path, size, err)
					return
				}
				defer resp.Body.Close()
				text, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != r.status || resp.ProtoMajor != 2 || r.status >= 400 && !bytes.Contains(text, []byte("urn:posthorn:problem:")) {
					t.Errorf("%s %s of %d bytes: %s %s %s, %v", r.method, r.path, size, resp.Proto, resp.Status, text, err)
				}
			})
		}
	}
}

// A stream is not reset behind a refusal while its client goes on to send, for a moment.
func TestAStreamIsNotResetBehindARefusal(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newConnections(ln, 100)
	server := &http.Server{ConnContext: l.remember, Handler: marking(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", web.ProblemType) // with 200: Go's client stops by itself at what is 300 and more
		io.WriteString(w, "{}")
	}))}
	cert, key := certificate(t, t.TempDir(), time.Now().Add(time.Hour))
	go server.ServeTLS(l, cert, key)
	t.Cleanup(func() { server.Close(); l.closeAll() })
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	for _, size := range []int64{100, 1 << 20, 8 << 20} {
		for _, known := range []bool{true, false} {
			sent := &watched{ReadCloser: io.NopCloser(zeros(size)), left: size}
			req, err := http.NewRequest("POST", fmt.Sprintf("https://%s/", ln.Addr()), sent)
			if err != nil {
				t.Fatal(err)
			}
			if known {
				req.ContentLength = size
			}
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || string(text) != "{}" || resp.ProtoMajor != 2 || sent.left != 0 {
				t.Errorf("%d bytes, known %v: %s %s, %v; %d bytes were not sent", size, known, resp.Proto, text, err, sent.left)
			}
		}
	}
}

// Who says that it waits for 100 gets the status without a byte of its body, and the
// end of the connection at once.
func TestWhoWaitsForContinueGetsTheStatusWithoutTheBody(t *testing.T) {
	t.Parallel()
	s, _ := exposed(t, false)
	token := s.token(t, "acme")
	for _, r := range refusals(token) {
		c := s.dial(t)
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, head(r.token, r.method, r.path, r.headers+"Expect: 100-continue\r\nContent-Length: 10485760\r\n"))
		all, err := io.ReadAll(c) // to the end of the connection
		if err != nil || !bytes.HasPrefix(all, fmt.Appendf(nil, "HTTP/1.1 %d ", r.status)) || bytes.Contains(all, []byte("100 Continue")) {
			t.Errorf("%s %s: %s, %v, want %d", r.method, r.path, all, err, r.status)
		}
	}
}

// half is an end of a pipe that can say that it writes no more.
type half struct {
	net.Conn
	ended, closed chan struct{}
	once          *sync.Once
}

func halfOf(c net.Conn) half {
	return half{c, make(chan struct{}), make(chan struct{}), new(sync.Once)}
}

func (h half) CloseWrite() error { close(h.ended); return nil }
func (h half) Close() error      { h.once.Do(func() { close(h.closed) }); return h.Conn.Close() }

// What is read of a body that nobody wants is bounded: in bytes, in all its time, and
// in silence.
func TestLingeringIsBounded(t *testing.T) {
	for _, c := range []struct {
		name   string
		client func(net.Conn)
		heard  time.Duration
	}{
		{"one that is gone", func(c net.Conn) { c.Close() }, 0},
		{"one that is silent", func(net.Conn) {}, lingerIdle},
		{"one that drips", func(c net.Conn) { drip(c, lingerIdle/2) }, lingerTime},
		{"one that drips slowly", func(c net.Conn) { drip(c, lingerIdle-1) }, lingerTime},
		{"one that drips more slowly", func(c net.Conn) { drip(c, lingerIdle+1) }, lingerIdle},
		{"one that never ends", func(c net.Conn) { io.Copy(c, endless{}) }, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := net.Pipe()
			l := newConnections(nil, 10)
			end := halfOf(ours)
			conn, _ := l.admit(end)
			conn.unread.Store(true)
			var client sync.WaitGroup
			client.Go(func() { c.client(theirs) })
			began := time.Now()
			if err := conn.Close(); err != nil {
				t.Fatal(err)
			}
			<-end.ended // it is told at once that no more comes
			if took := time.Since(began); took != 0 {
				t.Errorf("%s learns of the end after %s", c.name, took)
			}
			<-end.closed
			if took := time.Since(began); took != c.heard {
				t.Errorf("%s is heard for %s, want %s", c.name, took, c.heard)
			}
			synctest.Wait()
			open, _, _ := l.figures()
			if held, parties := l.lingering.Taken(); open != 0 || held != 0 || parties != 0 {
				t.Errorf("%s: %d are open, %d are counted of %d parties", c.name, open, held, parties)
			}
			theirs.Close()
			client.Wait()
		})
	}
}

// drip writes a byte now and then until nobody takes it.
func drip(c net.Conn, every time.Duration) {
	for range time.Tick(every) {
		if _, err := c.Write([]byte{0}); err != nil {
			return
		}
	}
}

// Whoever lingers on all places keeps nobody out, and has no more than its part.
func TestLingeringKeepsNobodyOut(t *testing.T) {
	t.Parallel()
	const places = 32
	s, n := exposed(t, false, fmt.Sprint("POSTHORN_MAX_CONNECTIONS=", places))
	victim := s.token(t, "victim")
	for range 3 * places {
		c := s.dial(t)
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, head("", "POST", "/nothing", "Expect: 100-continue\r\nContent-Length: 1073741824\r\n"))
		if resp, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || resp.StatusCode != 404 {
			t.Fatalf("%v, %v", resp, err)
		}
		s.servedWithin(t, victim, 20*time.Second)
	}
	if open, _, refused := n.listener.figures(); open > places || refused != 0 {
		t.Errorf("%d connections are open, %d were refused", open, refused)
	}
}

// A party has its part of those that linger; a further connection is closed at once, and
// all are when the node ends.
func TestLingeringIsShared(t *testing.T) {
	l := newConnections(nil, 1000)
	var ends []half
	for range lingersOfParty + 8 {
		ours, theirs := net.Pipe()
		defer theirs.Close()
		ends = append(ends, halfOf(ours))
		conn, _ := l.admit(ends[len(ends)-1])
		conn.unread.Store(true)
		conn.Close()
	}
	if open, _, _ := l.figures(); open != lingersOfParty {
		t.Errorf("%d connections of one party linger, want %d", open, lingersOfParty)
	}
	for _, end := range ends[lingersOfParty:] {
		<-end.closed
	}
	l.closeAll()
	for _, end := range ends {
		<-end.closed
	}
	eventually(t, "all of it given back", func() bool {
		held, parties := l.lingering.Taken()
		return held == 0 && parties == 0
	})
}
