package sim

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// network joins clients and receivers by pipes: sockets would stop the virtual
// clock.
type network struct {
	conns  chan net.Conn
	closed chan struct{}
	server *http.Server
	served sync.WaitGroup
}

// newNetwork serves every host with handler.
func newNetwork(handler http.Handler) *network {
	n := &network{conns: make(chan net.Conn), closed: make(chan struct{})}
	n.server = &http.Server{Handler: handler}
	n.served.Go(func() { _ = n.server.Serve(n) })
	return n
}

func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

func (n *network) Close() error   { return nil }
func (n *network) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "memory" }
func (address) String() string  { return "memory" }

func (n *network) close() {
	close(n.closed)
	_ = n.server.Close()
	n.served.Wait()
}

// cable is one process's access to the network: a crash cuts it.
type cable struct {
	net   *network
	mu    sync.Mutex
	cut   bool
	conns []net.Conn
}

func (c *cable) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	c.mu.Lock()
	if c.cut {
		c.mu.Unlock()
		return nil, net.ErrClosed
	}
	c.conns = append(c.conns, near, far)
	c.mu.Unlock()
	select {
	case c.net.conns <- far:
		return near, nil
	case <-c.net.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// sever breaks all connections at once.
func (c *cable) sever() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut = true
	for _, conn := range c.conns {
		conn.Close()
	}
}

// reply is what a receiver does with a request.
type reply struct {
	status int
	after  time.Duration
	header http.Header
	hang   bool // never answers
}

// visit is a request that a receiver read in full.
type visit struct {
	at       time.Time
	host     string
	header   http.Header
	body     string
	answered int // the status, 0 when the sender went away before
	ended    time.Time
}

// receivers are the scripted servers of all hosts.
type receivers struct {
	mu      sync.Mutex
	script  map[string]func(nth int) reply // by host; without one: 200 at once
	visits  []*visit
	count   map[string]int
	arrived func()
}

func newReceivers() *receivers {
	return &receivers{script: map[string]func(int) reply{}, count: map[string]int{}}
}

// answer sets how a host replies from now on; nth counts its requests from 0.
func (r *receivers) answer(host string, script func(nth int) reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.script[host] = script
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

func (r *receivers) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	body, err := io.ReadAll(q.Body)
	if err != nil {
		return // the request never arrived in full
	}
	v := &visit{at: time.Now(), host: q.Host, header: q.Header.Clone(), body: string(body)}
	r.mu.Lock()
	r.visits = append(r.visits, v)
	nth := r.count[q.Host]
	r.count[q.Host]++
	script, arrived := r.script[q.Host], r.arrived
	r.mu.Unlock()
	if arrived != nil {
		arrived()
	}
	rep := reply{status: 200}
	if script != nil {
		rep = script(nth)
	}
	gone := !r.dwell(q, rep)
	r.mu.Lock()
	v.ended = time.Now()
	if !gone {
		v.answered = rep.status
	}
	r.mu.Unlock()
	if gone {
		panic(http.ErrAbortHandler)
	}
	for k, vs := range rep.header {
		w.Header()[k] = vs
	}
	w.WriteHeader(rep.status)
}

// dwell lets the reply's time pass and reports whether the sender is still there.
func (r *receivers) dwell(q *http.Request, rep reply) bool {
	var answer <-chan time.Time
	if !rep.hang {
		if rep.after == 0 {
			return q.Context().Err() == nil
		}
		answer = time.After(rep.after)
	}
	select {
	case <-answer:
		return true
	case <-q.Context().Done():
		return false
	}
}

func status(code int) func(int) reply { return func(int) reply { return reply{status: code} } }
func hanging(int) reply               { return reply{hang: true} }
