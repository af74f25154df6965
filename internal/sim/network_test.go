package sim

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
)

// network joins clients and receivers by pipes: sockets would stop the virtual
// clock.
type network struct {
	receivers *receivers
	served    sync.WaitGroup
}

// close waits until no connection is served any more: every cable was severed.
func (n *network) close() { n.served.Wait() }

// cable is one process's access to the network: a crash cuts it.
type cable struct {
	net   *network
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]struct{}
}

func newCable(n *network) *cable { return &cable{net: n, conns: map[net.Conn]struct{}{}} }

func (c *cable) Dial(_ context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if c.net.receivers.refuses(host) {
		return nil, &net.OpError{Op: "dial", Net: network, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	near, far := net.Pipe()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cut {
		return nil, net.ErrClosed
	}
	c.conns[far] = struct{}{}
	c.net.served.Go(func() {
		c.net.receivers.serve(far)
		far.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.conns, far)
	})
	return near, nil
}

// sever breaks all connections at once.
func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for conn := range c.conns {
		conn.Close()
	}
}

// reply is what a receiver does with a request. The zero reply breaks the
// connection.
type reply struct {
	status int
	after  time.Duration
	header http.Header
	hang   bool   // never answers
	raw    string // goes out instead of an answer; then the connection breaks
	broken bool   // the answer's body breaks off
	// asked is how long the reply asks to be left alone, as a sender must
	// understand it.
	asked time.Duration
}

// visit is a request that a receiver read in full.
type visit struct {
	at       time.Time
	host     string
	header   http.Header
	body     string
	answered int // the status, 0 when the sender went away before
	asked    time.Duration
	ended    time.Time
}

// receivers are the scripted servers of all hosts.
type receivers struct {
	mu      sync.Mutex
	script  map[string]func(nth int) reply // by host; without one: 200 at once
	dead    map[string]bool                // hosts that refuse connections
	visits  []*visit
	count   map[string]int
	arrived func()
}

func newReceivers() *receivers {
	return &receivers{script: map[string]func(int) reply{}, dead: map[string]bool{}, count: map[string]int{}}
}

// answer sets how a host replies from now on; nth counts its requests from 0.
func (r *receivers) answer(host string, script func(nth int) reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script[host] = script
	delete(r.dead, host)
}

// refuse lets a host take no connection; those it has are not touched.
func (r *receivers) refuse(host string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead[host] = true
}

func (r *receivers) refuses(host string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dead[host]
}

// tell has fn called with each request, before it is answered.
func (r *receivers) tell(fn func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.arrived = fn
}

// seen returns the visits to a host so far.
func (r *receivers) seen(host string) (v []visit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, x := range r.visits {
		if x.host == host {
			v = append(v, *x)
		}
	}
	return v
}

// serve answers one connection's requests until either side ends it.
func (r *receivers) serve(c net.Conn) {
	br := bufio.NewReaderSize(c, 1024)
	for {
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		body, err := io.ReadAll(q.Body)
		if err != nil {
			return // the request never arrived in full
		}
		if !r.visit(c, br, q, string(body)) {
			return
		}
	}
}

// visit takes a request and reports whether the connection may go on.
func (r *receivers) visit(c net.Conn, br *bufio.Reader, q *http.Request, body string) (open bool) {
	v := &visit{at: time.Now(), host: q.Host, header: q.Header, body: body}
	r.mu.Lock()
	r.visits = append(r.visits, v)
	nth := r.count[q.Host]
	r.count[q.Host]++
	script, arrived := r.script[q.Host], r.arrived
	r.mu.Unlock()
	held := false
	if arrived != nil {
		arrived()
		held = time.Now().After(v.at)
	}
	rep := reply{status: 200}
	if script != nil {
		rep = script(nth)
	}
	answered := 0
	if dwell(c, br, rep) {
		answered, open = rep.send(c)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if v.ended, v.answered = time.Now(), answered; answered > 0 {
		v.asked = rep.asked
	}
	if held { // the sender may have gone at any time meanwhile
		v.ended = v.at
	}
	return open
}

// dwell lets the reply's time pass and reports whether the sender is still there.
func dwell(c net.Conn, br *bufio.Reader, rep reply) bool {
	if rep.hang {
		_, _ = br.Peek(1)
		return false
	}
	if rep.after == 0 {
		return true
	}
	c.SetReadDeadline(time.Now().Add(rep.after))
	_, err := br.Peek(1)
	c.SetReadDeadline(time.Time{})
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// send puts the reply on the wire and reports the status that went out.
func (rep reply) send(c net.Conn) (answered int, open bool) {
	switch {
	case rep.raw != "":
		_, _ = io.WriteString(c, rep.raw)
		return 0, false
	case rep.status == 0:
		return 0, false
	}
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", rep.status, http.StatusText(rep.status))
	_ = rep.header.Write(&b)
	if rep.broken {
		b.WriteString("Content-Length: 100\r\n\r\nthe rest never comes")
	} else {
		b.WriteString("Content-Length: 0\r\n\r\n")
	}
	if _, err := io.WriteString(c, b.String()); err != nil {
		return 0, false
	}
	return rep.status, !rep.broken
}

func status(code int) func(int) reply { return func(int) reply { return reply{status: code} } }
func hanging(int) reply               { return reply{hang: true} }
