package send_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
)

// A large body, then a small one, and the answer's body in between: the
// connection is kept as long as each body ends within what is read of it.
func TestConnectionIsKept(t *testing.T) {
	answers := []string{
		accepted, "HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 500 Oh\r\nContent-Length: 4096\r\n\r\n" + strings.Repeat("x", 4096),
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nExpires: never\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok",
		"HTTP/1.1 200 OK\r\nX-Größe: 1\r\nContent-Length : 2\r\n\r\nok", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n", accepted,
	}
	for _, config := range []string{"plain", "TLS"} {
		t.Run(config, func(t *testing.T) {
			serve := inTurn(answers...)
			ca := newAuthority(t)
			r, url := listen(t, nil, serve), ""
			if url = r.URL(); config == "TLS" {
				r = listen(t, ca.Server(t, nil), serve)
				url = r.URLS()
			}
			c := newClient(t, func(c *send.Config) { c.CAs = ca.Pool })
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
			if conns, requests := r.Counts(); conns != 1 || requests != len(answers) {
				t.Errorf("%d connections for %d requests", conns, requests)
			}
		})
	}
}

// inTurn answers the requests of a connection with one answer each.
func inTurn(answers ...string) func(*receiver, net.Conn) {
	return func(r *receiver, c net.Conn) {
		br := bufio.NewReader(c)
		for _, a := range answers {
			if _, err := r.Read(br); err != nil {
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
		"no length":         "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
		"two lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 0\r\n\r\n",
		"length and chunks": "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"encoding unknown":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: br\r\nContent-Length: 0\r\n\r\n",
		"no colon":          "HTTP/1.1 200 OK\r\nContent-Length 5\r\nContent-Length: 0\r\n\r\n",
		"bytes beyond":      "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
	} {
		r := listen(t, nil, answering(answer))
		c := newClient(t, nil)
		for range 2 {
			if a := mustSend(t, c, request(r.URL())); !a.Succeeded() {
				t.Errorf("%s: %s", name, a.Explain())
			}
		}
		if conns, requests := r.Counts(); conns != 2 || requests != 2 {
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
				if _, err := r.Read(bufio.NewReader(c)); err == nil {
					io.WriteString(c, accepted) // keeps alive, says the answer; then closes
				}
			}
			r := listen(t, nil, serve)
			url := r.URL()
			if config == "TLS" {
				r = listen(t, ca.Server(t, nil), serve)
				url = r.URLS()
			}
			c := newClient(t, func(c *send.Config) { c.CAs = ca.Pool })
			const n = 50
			for i := range n {
				a := mustSend(t, c, request(url))
				if !a.Succeeded() {
					t.Fatalf("attempt %d: %s", i, a.Explain())
				}
				for r.OpenConns() > 0 { // until the receiver has closed
					<-time.After(time.Millisecond)
				}
			}
			if conns, requests := r.Counts(); conns != n || requests != n {
				t.Errorf("%d connections and %d requests for %d attempts", conns, requests, n)
			}
		})
	}
}

// The close may also arrive together with our request. Then the attempt fails;
// it is not sent again.
func TestKeptConnectionThatEatsTheRequest(t *testing.T) {
	r := listen(t, nil, func(r *receiver, c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := r.Read(br); err != nil {
			return
		}
		io.WriteString(c, accepted)
		r.Read(br)
		reset(c)
	})
	c := newClient(t, nil)
	if a := mustSend(t, c, request(r.URL())); !a.Succeeded() {
		t.Fatal(a.Explain())
	}
	if a := mustSend(t, c, request(r.URL())); a.Class != posthorn.ClassReset {
		t.Errorf("class %v", a.Class)
	}
	if conns, requests := r.Counts(); conns != 1 || requests != 2 {
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
		req := request(tt.to.URL())
		req.Endpoint = tt.endpoint
		mustSend(t, c, req)
	}
	if conns, _ := r.Counts(); conns != 2 {
		t.Errorf("%d connections for two endpoints of one receiver", conns)
	}
	if conns, _ := other.Counts(); conns != 1 {
		t.Errorf("%d connections after the URL changed", conns)
	}
	c.Forget(1)
	c.Forget(3)
	req := request(other.URL())
	mustSend(t, c, req)
	if conns, _ := other.Counts(); conns != 2 {
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
				req := request(r.URL())
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
	if _, n := r.Counts(); n != 400 {
		t.Errorf("%d requests on the wire for 400 attempts", n)
	}
}

// After a shutdown began nothing goes out any more, on a kept connection either.
func TestNothingIsSentAfterShutdown(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	c := newClient(t, nil)
	mustSend(t, c, request(r.URL()))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 20 {
		if a := c.Send(ctx, request(r.URL())); a.Class != posthorn.ClassLocal {
			t.Errorf("class %v", a.Class)
		}
	}
	if _, n := r.Counts(); n != 1 {
		t.Errorf("%d requests on the wire", n)
	}
}
