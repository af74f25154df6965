package app

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/web"
)

// connections is a listener that has at most max connections open, which parties
// share. When another one comes, one of a party that holds more than others gives
// its place ([connections.giveWay]): whoever holds connections, without using them
// or with requests that do not end, on purpose or not, keeps nobody out. Requests
// in progress are shared in the same way, however many a connection has.
type connections struct {
	net.Listener
	max int
	// requests are those in progress that are known whom they count for.
	requests *share.Pool
	// lingering are those whose clients are waited for: see linger.
	lingering *share.Pool

	mu      sync.Mutex
	open    int
	evicted int
	refused int
	steps   uint64 // counts changes of state
	parties map[share.Party]*holder
}

// state is what a connection is held for, by how easily its place is taken.
type state uint8

const (
	isWaiting   state = iota // for a request, or for the rest of a request's headers
	isReading                // the bodies of all of its requests
	isAnswering              // a request at least
	states
)

// holder is a party and its connections, by state, those longest in it first.
type holder struct {
	who  share.Party
	open int
	in   [states]list.List // of *connection
}

type connection struct {
	net.Conn
	of     *connections
	unread atomic.Bool // more may come that nobody wants
	// Guarded by of.mu.
	by       *holder
	state    state
	since    uint64        // the step at which it came into the state
	place    *list.Element // in by
	requests int
	reading  int // of the requests: those whose bodies are being read
	closed   bool
}

// newConnections shares so many places of a listener.
func newConnections(ln net.Listener, places int) *connections {
	return &connections{
		Listener: ln, max: places, parties: make(map[share.Party]*holder),
		requests: share.NewPool(int64(places), 0), lingering: share.NewPool(lingersInAll, lingersOfParty),
	}
}

// Accept implements [net.Listener].
func (l *connections) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c, evicted := l.admit(raw)
		if evicted != nil {
			_ = evicted.Conn.Close() // its reader ends with an error
		}
		if c != nil {
			return c, nil
		}
		_ = raw.Close() // nobody was promised anything
	}
}

// admit takes the connection in, perhaps in the place of another one; nil when
// there is no place for it. Until a request tells, it counts for its address.
func (l *connections) admit(raw net.Conn) (c, evicted *connection) {
	who := callerOf(raw)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.max {
		if evicted = l.giveWay(who); evicted == nil {
			l.refused++
			return nil, nil
		}
		l.forget(evicted)
		l.evicted++
	}
	l.open++
	c = &connection{Conn: raw, of: l}
	l.put(c, who, isWaiting)
	return c, evicted
}

func callerOf(c net.Conn) share.Party {
	from, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return share.Party{}
	}
	return share.Address(from.Addr())
}

// put and take keep a connection among those of a party in a state. They are
// called with mu held.
func (l *connections) put(c *connection, who share.Party, s state) {
	by := l.parties[who]
	if by == nil {
		by = &holder{who: who}
		l.parties[who] = by
	}
	by.open++
	l.steps++
	c.by, c.state, c.since, c.place = by, s, l.steps, by.in[s].PushBack(c)
}

func (l *connections) take(c *connection) {
	c.by.in[c.state].Remove(c.place)
	if c.by.open--; c.by.open == 0 {
		delete(l.parties, c.by.who)
	}
}

// forget is called with mu held.
func (l *connections) forget(c *connection) {
	if c.closed {
		return
	}
	c.closed = true
	l.open--
	l.take(c)
}

// settle puts the connection where its requests belong. It is called with mu held.
func (c *connection) settle() {
	s := isAnswering
	switch {
	case c.requests <= 0:
		s = isWaiting
	case c.reading >= c.requests:
		s = isReading
	}
	if s == c.state || c.closed {
		return
	}
	c.by.in[c.state].Remove(c.place)
	c.of.steps++
	c.state, c.since, c.place = s, c.of.steps, c.by.in[s].PushBack(c)
}

// Close implements [net.Conn]. It waits for nothing; where a client may still be
// writing the connection is closed a while later.
func (c *connection) Close() error {
	if c.unread.CompareAndSwap(true, false) && c.of.linger(c) {
		return nil
	}
	return c.shut()
}

// shut closes the connection now.
func (c *connection) shut() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// begin and end enclose the answering of a request. With HTTP/2 a connection may
// have several at a time.
func (c *connection) begin() { c.change(1, 0) }
func (c *connection) end()   { c.change(-1, 0) }

func (c *connection) change(requests, reading int) {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	c.requests += requests
	c.reading += reading
	c.settle()
}

// Enter implements [web.Place].
func (c *connection) Enter(who share.Party, reading bool) error {
	l := c.of
	err := l.requests.Take(who, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.by.who != who && !c.closed {
		l.take(c)
		l.put(c, who, c.state)
	}
	if err == nil && reading {
		c.reading++
		c.settle()
	}
	return err
}

// Received implements [web.Place].
func (c *connection) Received() { c.change(0, -1) }

// Leave implements [web.Place].
func (c *connection) Leave(who share.Party, reading bool) {
	c.of.requests.Give(who, 1)
	if reading {
		c.change(0, -1)
	}
}

// figures are for the metrics.
func (l *connections) figures() (open, evicted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.evicted, l.refused
}

// remember is the server's ConnContext.
func (l *connections) remember(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	if c, ok := c.(*connection); ok {
		return web.WithPlace(ctx, c)
	}
	return ctx
}

// marking tells a request's connection when it is being answered, and what is left of
// its body then.
func marking(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, ok := web.PlaceOf(r.Context()).(*connection)
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		c.begin()
		defer c.end()
		r, body := watch(r)
		next.ServeHTTP(w, r)
		c.leave(w, r, body)
	})
}
