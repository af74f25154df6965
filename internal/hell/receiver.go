package hell

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// Receiver is a scripted server on a real socket. It counts what it saw on the
// wire.
type Receiver struct {
	net.Listener
	mu       sync.Mutex
	conns    int
	requests []*Seen
	open     map[net.Conn]bool
	wg       sync.WaitGroup
}

// Seen is a request as it came off the wire.
type Seen struct {
	*http.Request
	Raw  []byte // as it came, head and body
	Body []byte
}

// Listen serves each connection with serve, after TLS if config is given.
func Listen(t testing.TB, config *tls.Config, serve func(r *Receiver, c net.Conn)) *Receiver {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &Receiver{Listener: ln, open: make(map[net.Conn]bool)}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns++
			r.open[c] = true
			r.mu.Unlock()
			socket := c
			r.wg.Go(func() {
				defer func() {
					c.Close()
					r.mu.Lock()
					delete(r.open, socket)
					r.mu.Unlock()
				}()
				if config != nil {
					c = tls.Server(c, config)
				}
				serve(r, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.HangUp()
		r.wg.Wait()
	})
	return r
}

// HangUp closes all connections.
func (r *Receiver) HangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.Close()
	}
}

// URL is where it is reached without TLS.
func (r *Receiver) URL() string { return "http://" + r.Addr().String() + "/hooks?a=b" }

// URLS is where it is reached with TLS.
func (r *Receiver) URLS() string { return "https://" + r.Addr().String() + "/hooks" }

// Last returns the request that came last.
func (r *Receiver) Last() *Seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.requests[len(r.requests)-1]
}

// OpenConns counts the connections that are open now.
func (r *Receiver) OpenConns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

// Counts returns how many connections were accepted and requests read so far.
func (r *Receiver) Counts() (conns, requests int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns, len(r.requests)
}

// Read takes one request off the wire.
func (r *Receiver) Read(br *bufio.Reader) (*Seen, error) {
	var raw recorder
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(&oneByte{br}, &raw)))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s := &Seen{Request: req, Raw: raw, Body: body}
	r.mu.Lock()
	r.requests = append(r.requests, s)
	r.mu.Unlock()
	return s, nil
}

// oneByte keeps a bufio.Reader above it from reading into the next request.
type oneByte struct{ r io.Reader }

func (o *oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

type recorder []byte

func (r *recorder) Write(p []byte) (int, error) { *r = append(*r, p...); return len(p), nil }

// Answering reads one request after the other and writes the same answer, until
// the connection ends.
func Answering(answer string) func(*Receiver, net.Conn) {
	return func(r *Receiver, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, err := r.Read(br); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// Once reads one request, does something and closes the connection.
func Once(do func(c net.Conn)) func(*Receiver, net.Conn) {
	return func(r *Receiver, c net.Conn) {
		if _, err := r.Read(bufio.NewReader(c)); err == nil {
			do(c)
		}
	}
}

// Reset closes with RST.
func Reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// Drip writes s byte by byte until the other side is gone.
func Drip(c net.Conn, s string, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % len(s) {
		if _, err := c.Write([]byte{s[i]}); err != nil {
			return
		}
		<-tick.C
	}
}

// Stall waits until the other side is gone.
func Stall(c net.Conn) { io.Copy(io.Discard, c) }

// Flood writes as long as the other side reads.
func Flood(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// HTTP2Only speaks nothing but HTTP/2: it begins with its SETTINGS, and ends with
// GOAWAY when what comes is no preface.
func HTTP2Only(_ *Receiver, c net.Conn) {
	io.WriteString(c, "\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x80\x00\x04\x00\x01\x00\x00\x00\x05\x00\xff\xff\xff")
	c.Read(make([]byte, 24))
	io.WriteString(c, "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01")
}

// IDs counts the requests by their webhook-id.
func (r *Receiver) IDs() map[string]int {
	r.mu.Lock()
	defer r.mu.Unlock()
	ids := map[string]int{}
	for _, s := range r.requests {
		ids[s.Header.Get("webhook-id")]++
	}
	return ids
}
