package send_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

const accepted = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"

// The bytes on the wire, all of them: what is not here is not sent (no
// accept-encoding, no expect, no connection header).
func TestRequestOnTheWire(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	at := time.Date(2026, 4, 29, 9, 10, 0, 5e8, time.UTC)
	c := newClient(t, func(c *send.Config) {
		c.UserAgent = "Posthorn/1.2.3"
		c.Now = func() time.Time { return at }
	})
	req := request(r.url())
	req.Attempt, req.Test = 3, true
	req.Headers = []posthorn.Header{
		{Name: "X-Team", Value: "a"}, {Name: "x-team", Value: " b "}, {Name: "Authorization", Value: "Bearer t"},
		{Name: "Webhook-ID", Value: "forged"}, {Name: "svix-id", Value: "forged"}, {Name: "Idempotency-Key", Value: "1"},
		{Name: "content-type", Value: "text/plain"}, {Name: "Content-Length", Value: "0"}, {Name: "HOST", Value: "internal"},
		{Name: "Transfer-Encoding", Value: "chunked"}, {Name: "Connection", Value: "close"}, {Name: "Expect", Value: "100-continue"},
		{Name: "User-Agent", Value: "x"}, {Name: "posthorn-test", Value: "x"}, {Name: "Accept-Encoding", Value: "gzip"},
		{Name: "X-Split", Value: "a\r\nX-Injected: b"}, {Name: "X-Bad\r\nX-Injected", Value: "b"}, {Name: "", Value: "x"},
	}
	if a := mustSend(t, c, req); !a.Succeeded() {
		t.Fatal(a.Explain())
	}
	signature := string(webhook.Sign(nil, req.EventRef, at, req.Body, testKey))
	want := strings.Join([]string{
		"POST /hooks?a=b HTTP/1.1", "Host: " + r.Addr().String(), "x-team: b", "Authorization: Bearer t",
		"User-Agent: Posthorn/1.2.3", "Content-Type: application/json", "Content-Length: 49",
		"webhook-id: evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", "webhook-timestamp: 1777453800", "webhook-signature: " + signature,
		"posthorn-delivery: " + req.Delivery.Text(posthorn.DeliveryPrefix), "posthorn-attempt: 3",
		"posthorn-event-type: cases.updated", "posthorn-test: true", "", string(req.Body),
	}, "\r\n")
	if diff := cmp.Diff(want, string(r.requests[0].raw)); diff != "" {
		t.Errorf("on the wire (-want +got):\n%s", diff)
	}
}

func TestOfficialLibraryVerifies(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	req := request(r.url())
	old := webhook.NewSecret()
	oldKey, err := webhook.ParseSecret(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, size := range []int{0, 100, 4 << 10, 300 << 10} {
		req.Keys = [][]byte{testKey, oldKey}
		req.Body = bytes.Repeat([]byte("ä\x00"), size/3)
		if a := mustSend(t, newClient(t, nil), req); !a.Succeeded() {
			t.Fatal(a.Explain())
		}
		got := r.requests[len(r.requests)-1]
		if !bytes.Equal(got.body, req.Body) {
			t.Errorf("%d bytes: the body came otherwise", size)
		}
		for _, secret := range []string{testSecret, old} {
			official, err := standard.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := official.Verify(got.body, got.Header); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
	}
}

func TestNoKeyIsOurFault(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	req := request(r.url())
	req.Keys = nil
	if a := mustSend(t, newClient(t, nil), req); a.Class != posthorn.ClassLocal {
		t.Errorf("class %v", a.Class)
	}
	req = request(r.url())
	req.EventRef = "a\r\nx: y"
	if a := mustSend(t, newClient(t, nil), req); a.Class != posthorn.ClassLocal {
		t.Errorf("class %v", a.Class)
	}
	if _, n := r.counts(); n != 0 {
		t.Errorf("%d requests on the wire", n)
	}
}

func TestAttemptTellsWhatCame(t *testing.T) {
	body := strings.Repeat("ü", 3000)
	r := listen(t, nil, answering("HTTP/1.1 503 Busy\r\nX-Request-Id: r1\r\nSet-Cookie: secret\r\nServer: "+strings.Repeat("s", 300)+
		"\r\nRetry-After: 120\r\nContent-Type: text/plain\r\nContent-Length: 6000\r\n\r\n"+body))
	c := newClient(t, nil)
	a := mustSend(t, c, request(r.url()))
	want := []posthorn.Header{
		{Name: "content-type", Value: "text/plain"}, {Name: "retry-after", Value: "120"},
		{Name: "server", Value: strings.Repeat("s", 256)}, {Name: "x-request-id", Value: "r1"},
	}
	if diff := cmp.Diff(want, a.Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if a.RetryAfter != 2*time.Minute || a.Number != 1 || a.At.IsZero() {
		t.Errorf("retry after %v, number %d, at %v", a.RetryAfter, a.Number, a.At)
	}
	if string(a.Snippet) != body[:4096] || a.BodyNote != "truncated" {
		t.Errorf("%d bytes of body, note %q", len(a.Snippet), a.BodyNote)
	}
	if a.Timings.Connect <= 0 || a.Timings.FirstByte <= 0 || a.Timings.TLS != 0 || a.Timings.DNS != 0 || a.Duration < a.Timings.Connect {
		t.Errorf("timings %+v of %v", a.Timings, a.Duration)
	}
}

// A large body, then a small one, and the answer's body in between: the
// connection is kept as long as each body ends within what is read of it.
func TestConnectionIsKept(t *testing.T) {
	answers := []string{
		accepted, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 500 Oh\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("x", 4096),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", accepted,
	}
	for _, config := range []string{"plain", "TLS"} {
		t.Run(config, func(t *testing.T) {
			serve := inTurn(answers...)
			ca := newAuthority(t)
			r, url := listen(t, nil, serve), ""
			if url = r.url(); config == "TLS" {
				r = listen(t, ca.server(t, nil), serve)
				url = r.urls()
			}
			c := newClient(t, func(c *send.Config) { c.CAs = ca.pool })
			for i := range answers {
				req := request(url)
				if i == 1 {
					req.Body = make([]byte, 200<<10)
				}
				a := mustSend(t, c, req)
				if a.Status == 0 {
					t.Fatalf("answer %d: %s", i, a.Explain())
				}
				if i > 0 && (a.Timings.Connect != 0 || a.Timings.TLS != 0) {
					t.Errorf("answer %d: the timings tell of a new connection: %+v", i, a.Timings)
				}
			}
			if conns, requests := r.counts(); conns != 1 || requests != len(answers) {
				t.Errorf("%d connections for %d requests", conns, requests)
			}
		})
	}
}

// inTurn answers the requests of a connection with one answer each.
func inTurn(answers ...string) func(*receiver, net.Conn) {
	return func(r *receiver, c net.Conn) {
		br := newReader(c)
		for _, a := range answers {
			if _, err := r.read(br); err != nil {
				return
			}
			io.WriteString(c, a)
		}
		stall(c)
	}
}

func TestConnectionIsNotKept(t *testing.T) {
	for name, answer := range map[string]string{
		"connection: close": "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.0":          "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"more than is read": "HTTP/1.1 200 OK\r\nContent-Length: 4097\r\n\r\n" + strings.Repeat("x", 4097),
		"bytes beyond":      "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		r := listen(t, nil, answering(answer))
		c := newClient(t, nil)
		for range 2 {
			if a := mustSend(t, c, request(r.url())); !a.Succeeded() {
				t.Errorf("%s: %s", name, a.Explain())
			}
		}
		if conns, requests := r.counts(); conns != 2 || requests != 2 {
			t.Errorf("%s: %d connections, %d requests, want 2 each", name, conns, requests)
		}
	}
}

// A connection that the receiver closed while it was idle never fails an
// attempt, and never makes a second request on the wire.
func TestStaleConnectionIsReplaced(t *testing.T) {
	for _, config := range []string{"plain", "TLS"} {
		t.Run(config, func(t *testing.T) {
			ca := newAuthority(t)
			serve := func(r *receiver, c net.Conn) {
				if _, err := r.read(newReader(c)); err == nil {
					io.WriteString(c, accepted) // keeps alive, says the answer; then closes
				}
			}
			r := listen(t, nil, serve)
			url := r.url()
			if config == "TLS" {
				r = listen(t, ca.server(t, nil), serve)
				url = r.urls()
			}
			c := newClient(t, func(c *send.Config) { c.CAs = ca.pool })
			const n = 50
			for i := range n {
				a := mustSend(t, c, request(url))
				if !a.Succeeded() {
					t.Fatalf("attempt %d: %s", i, a.Explain())
				}
				for r.openConns() > 0 { // until the receiver has closed
					<-time.After(time.Millisecond)
				}
			}
			if conns, requests := r.counts(); conns != n || requests != n {
				t.Errorf("%d connections and %d requests for %d attempts", conns, requests, n)
			}
		})
	}
}

// The close may also arrive together with our request. Then the attempt fails;
// it is not sent again.
func TestKeptConnectionThatEatsTheRequest(t *testing.T) {
	r := listen(t, nil, func(r *receiver, c net.Conn) {
		br := newReader(c)
		if _, err := r.read(br); err != nil {
			return
		}
		io.WriteString(c, accepted)
		r.read(br)
		reset(c)
	})
	c := newClient(t, nil)
	if a := mustSend(t, c, request(r.url())); !a.Succeeded() {
		t.Fatal(a.Explain())
	}
	if a := mustSend(t, c, request(r.url())); a.Class != posthorn.ClassReset {
		t.Errorf("class %v", a.Class)
	}
	if conns, requests := r.counts(); conns != 1 || requests != 2 {
		t.Errorf("%d connections, %d requests for two attempts", conns, requests)
	}
}

func TestEndpointsShareNoConnection(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	other := listen(t, nil, answering(accepted))
	c := newClient(t, nil)
	for _, tt := range []struct {
		endpoint int64
		to       *receiver
	}{{1, r}, {2, r}, {1, r}, {1, other}, {1, other}} {
		req := request(tt.to.url())
		req.Endpoint = tt.endpoint
		mustSend(t, c, req)
	}
	if conns, _ := r.counts(); conns != 2 {
		t.Errorf("%d connections for two endpoints of one receiver", conns)
	}
	if conns, _ := other.counts(); conns != 1 {
		t.Errorf("%d connections after the URL changed", conns)
	}
	c.Forget(1)
	c.Forget(3)
	req := request(other.url())
	mustSend(t, c, req)
	if conns, _ := other.counts(); conns != 2 {
		t.Errorf("%d connections after Forget", conns)
	}
	c.Close()
	c.Close()
	if a := mustSend(t, c, req); !a.Succeeded() {
		t.Errorf("after Close: %s", a.Explain())
	}
}

func TestConcurrentAttempts(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	c := newClient(t, nil)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 50 {
				req := request(r.url())
				req.Endpoint = int64(i % 3)
				if a := c.Send(context.Background(), req); !a.Succeeded() {
					t.Errorf("%s", a.Explain())
				}
				if i%10 == 0 {
					c.Forget(1)
				}
			}
		})
	}
	wg.Wait()
	if _, n := r.counts(); n != 400 {
		t.Errorf("%d requests on the wire for 400 attempts", n)
	}
}

func TestShutdownIsLocal(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := listen(t, nil, once(func(c net.Conn) { cancel(); stall(c) }))
	a := newClient(t, nil).Send(ctx, request(r.url()))
	if a.Class != posthorn.ClassLocal || a.Duration > time.Second {
		t.Errorf("class %v after %v", a.Class, a.Duration)
	}
	if a := newClient(t, nil).Send(ctx, request(r.url())); a.Class != posthorn.ClassLocal {
		t.Errorf("with a context that is over: class %v", a.Class)
	}
	ctx, cancel = context.WithCancel(context.Background())
	r = listen(t, nil, once(func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab")
		<-time.After(50 * time.Millisecond)
		cancel()
		stall(c)
	}))
	if a := newClient(t, nil).Send(ctx, request(r.url())); !a.Succeeded() || string(a.Snippet) != "ab" {
		t.Errorf("the answer was there: class %v, body %q", a.Class, a.Snippet)
	}
}

// The dial hook serves a network in memory, where time is virtual.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		delay := 14 * time.Second
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
			io.WriteString(w, "ok")
		})}
		go server.Serve(pipes)
		var dialled []string
		c, err := send.New(send.Config{AllowHTTP: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled = append(dialled, network+" "+addr)
			return pipes.dial(ctx)
		}})
		if err != nil {
			t.Fatal(err)
		}
		req := request("http://receiver.test:8080/")
		req.Timeout = 15 * time.Second
		for range 2 {
			a := c.Send(t.Context(), req)
			if !a.Succeeded() || a.Duration != delay || string(a.Snippet) != "ok" {
				t.Errorf("class %v after %v", a.Class, a.Duration)
			}
		}
		if diff := cmp.Diff([]string{"tcp receiver.test:8080"}, dialled); diff != "" {
			t.Errorf("dialled (-want +got):\n%s", diff)
		}
		<-time.After(61 * time.Second) // the idle connection goes
		delay = 16 * time.Second
		if a := c.Send(t.Context(), req); a.Class != posthorn.ClassTimeout || a.Duration != 15*time.Second {
			t.Errorf("class %v after %v", a.Class, a.Duration)
		}
		if len(dialled) != 2 {
			t.Errorf("dialled %q: a connection idle for a minute was used", dialled)
		}
		c.Close()
		server.Close()
	})
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// Product code must not find a way around the guard: the clients of net/http
// that everybody shares follow redirects, read HTTP_PROXY and judge nothing.
func TestNobodyGoesAroundTheGuard(t *testing.T) {
	around := regexp.MustCompile(`http\.(DefaultClient|DefaultTransport|ProxyFromEnvironment|Get\(|Post\(|PostForm\(|Head\()|net\.Dial\(`)
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if d.IsDir() && path == filepath.Join(root, "client") {
			return filepath.SkipDir // runs on users' machines and calls our API; it may use their proxy
		}
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		source, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i, line := range strings.Split(string(source), "\n") {
			code, _, _ := strings.Cut(line, "//")
			if around.MatchString(code) {
				t.Errorf("%s:%d uses %s: webhooks go out by send.Client only, whose guard judges each address", path, i+1, around.FindString(code))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for _, cidr := range []string{"169.254.0.0/16", "169.254.169.0/24", "fe80::/10", "fe80::/64", "224.0.0.0/8", "0.0.0.0/32", "ff02::1/128"} {
		if _, err := send.New(send.Config{AllowPrivate: prefixes(cidr)}); err == nil || !strings.Contains(err.Error(), cidr) {
			t.Errorf("%s is accepted: %v", cidr, err)
		}
	}
	if _, err := send.New(send.Config{AllowPrivate: prefixes("10.0.0.0/8", "169.254.169.254/32", "fd00::/8", "100.64.0.0/10", "fe80::1/128")}); err != nil {
		t.Error(err)
	}
	if _, err := send.New(send.Config{UserAgent: "a\r\nb"}); err == nil {
		t.Error("a user agent of two lines is accepted")
	}
}
