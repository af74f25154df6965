package send

import (
	"bufio"
	"bytes"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"
)

const (
	// idleTime is how long a connection is kept without use.
	idleTime = 60 * time.Second
	// maxAge is how long a connection is used at most, so that a name that moves to
	// another address is followed while the old one goes on answering. Each lasts up to
	// a fifth less, or those that were made together would be made again together.
	maxAge = 5 * time.Minute
	// watchAfter is how long a connection is idle before a goroutine watches it. A
	// busy endpoint's next attempt comes earlier and looks for itself.
	watchAfter = 2 * time.Second
	// maxIdle bounds the idle connections of all endpoints; past it, or past half
	// of the files that the process may open, the one unused for longest goes.
	maxIdle = 12_288
)

// conn is a connection to an endpoint's receiver. An attempt owns it, or the
// pool while it is idle.
type conn struct {
	net.Conn         // what is spoken to: TLS, or the raw connection
	socket   *socket // below it, to look whether it is still open; nil when nobody can
	br       *bufio.Reader
	// left is how many bytes may still be read: the bound of an answer's headers.
	left int64
	// lines counts the lines of the headers so far.
	lines int
	// failed is what ended reading, if something did: parsers hide it behind a
	// complaint about the line that it cut.
	failed   error
	endpoint int64
	origin   string
	reused   bool
	until    time.Time // when it is used no more
	// generation is the pool's when the connection began to be made.
	generation int
	passed     time.Time // when it was last noted as a way that works

	// The pool's: where the connection stands in the order of use, since when, and
	// what its watcher found when it was taken; nil while it has none.
	older, newer *conn
	// place is its place among its tenant's at the address; nil where that is not known.
	place                *counted
	olderHere, newerHere *conn

	idle    bool
	since   time.Time
	watched chan bool
}

func newConn(nc, raw net.Conn, endpoint int64, origin string) *conn {
	c := &conn{Conn: nc, endpoint: endpoint, origin: origin, left: math.MaxInt64}
	c.until = time.Now().Add(maxAge - rand.N(maxAge/5))
	if n, ok := raw.(*counted); ok {
		raw, c.place = n.Conn, n
	}
	c.socket = newSocket(raw)
	c.takeReader()
	return c
}

// readers are those of connections that are idle and not watched.
var readers = sync.Pool{New: func() any { return bufio.NewReader(nil) }}

func (c *conn) takeReader() {
	c.br = readers.Get().(*bufio.Reader)
	c.br.Reset(c)
}

func (c *conn) leaveReader() {
	c.br.Reset(nil)
	readers.Put(c.br)
	c.br = nil
}

// Read is for the bufio.Reader: it stops where the bound is reached.
func (c *conn) Read(p []byte) (int, error) {
	switch {
	case c.left <= 0:
		c.failed = errHeadTooLarge
		return 0, c.failed
	case c.lines > maxHeadLines:
		c.failed = errHeadTooLong
		return 0, c.failed
	}
	if int64(len(p)) > c.left {
		p = p[:c.left]
	}
	n, err := c.Conn.Read(p)
	if c.left <= maxHead {
		// What follows the headers in the same read is counted too, but then nobody
		// reads on for them.
		c.lines += bytes.Count(p[:n], []byte{'\n'})
	}
	c.left -= int64(n)
	c.failed = err
	return n, err
}

var longAgo = time.Unix(1, 0)

// pool keeps idle connections, each for the endpoint and origin that it was
// made for. An endpoint cannot take another's, and needs no bound of its own:
// it leaves no more than it had attempts in flight, and each goes after
// idleTime, and none is used for longer than maxAge. An idle connection takes a descriptor and, once it is watched,
// about 8 KiB (a buffer, a waiting goroutine), 12 KiB more with TLS; an endpoint
// without one takes nothing.
type pool struct {
	mu         sync.Mutex
	byEndpoint map[int64][]*conn // oldest first
	crowds     map[crowdKey]*crowd
	perAddress int // bounds each crowd; 0 for maxPerAddress
	oldest     *conn
	newest     *conn
	count      int
	gen        int // changes when no connection that was made before may be used again
	most       int // of count; 0 before the first put
	closed     bool
	watchers   sync.WaitGroup
	look       *time.Timer // runs while connections have no watcher yet
	looking    bool
}

// get returns a connection that is still open, or nil.
func (p *pool) get(endpoint int64, origin string) *conn {
	for {
		c := p.take(endpoint)
		if c == nil {
			return nil
		}
		silent := true
		if c.watched != nil {
			// Wake the watcher; it reports whether the receiver was silent.
			c.SetReadDeadline(longAgo)
			silent = <-c.watched
			c.watched = nil
		} else {
			c.takeReader()
		}
		if silent && c.origin == origin && c.generation == p.generation() && time.Now().Before(c.until) && c.socket.open() {
			c.reused = true
			return c
		}
		c.Close()
	}
}

// take removes the endpoint's most recently used connection from the pool.
func (p *pool) take(endpoint int64) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := p.byEndpoint[endpoint]
	if len(list) == 0 {
		return nil
	}
	c := list[len(list)-1]
	p.remove(c)
	return c
}

// put keeps the connection for the endpoint's next attempt.
func (p *pool) put(c *conn) {
	c.left = math.MaxInt64
	c.since = time.Now()
	p.mu.Lock()
	if p.closed || c.generation != p.gen {
		p.mu.Unlock()
		c.Close()
		return
	}
	if p.most == 0 {
		p.most = min(maxIdle, max(openFiles()/2, 64))
	}
	p.add(c)
	c.leaveReader()
	if c.socket != nil {
		p.lookLater()
	} else {
		p.startWatch(c)
	}
	var evicted *conn
	if p.count > p.most {
		evicted = p.oldest
		p.remove(evicted)
	}
	p.mu.Unlock()
	if evicted != nil {
		evicted.Close()
	}
}

// lookLater, startWatch and watchIdle are called with mu held.
func (p *pool) lookLater() {
	switch {
	case p.looking:
		return
	case p.look == nil:
		p.look = time.AfterFunc(watchAfter, func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.watchIdle()
		})
	default:
		p.look.Reset(watchAfter)
	}
	p.looking = true
}

// watchIdle has the connections watched that nobody took for a while. Those
// without a watcher are the newest.
func (p *pool) watchIdle() {
	p.looking = false
	if p.closed {
		return
	}
	for c := p.newest; c != nil && c.watched == nil; c = c.older {
		if time.Since(c.since) >= watchAfter {
			p.startWatch(c)
		} else {
			p.lookLater()
		}
	}
}

func (p *pool) startWatch(c *conn) {
	c.watched = make(chan bool, 1)
	c.takeReader()
	ends := c.since.Add(idleTime)
	if c.until.Before(ends) {
		ends = c.until
	}
	c.SetDeadline(ends)
	p.watchers.Go(func() { p.watch(c) })
}

// watch waits until the connection is taken, or the receiver closes it or says
// something that nobody asked for, or its time is over: then it goes.
func (p *pool) watch(c *conn) {
	_, err := c.br.Peek(1)
	p.mu.Lock()
	idle := c.idle
	if idle {
		p.remove(c)
	}
	p.mu.Unlock()
	if idle {
		c.Close()
		return
	}
	c.watched <- isTimeout(err)
}

func (p *pool) forget(endpoint int64) {
	p.mu.Lock()
	list := slices.Clone(p.byEndpoint[endpoint])
	for _, c := range list {
		p.remove(c)
	}
	p.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

func (p *pool) generation() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.gen
}

// forgetAll has no connection used again that was made before or is being made now.
func (p *pool) forgetAll() {
	p.mu.Lock()
	p.gen++
	list := p.empty()
	p.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
}

func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	if p.look != nil {
		p.look.Stop()
	}
	list := p.empty()
	p.mu.Unlock()
	for _, c := range list {
		c.Close()
	}
	p.watchers.Wait()
}

// empty removes all idle connections. It is called with mu held.
func (p *pool) empty() (list []*conn) {
	for p.oldest != nil {
		list = append(list, p.oldest)
		p.remove(p.oldest)
	}
	return list
}

// add and remove are called with mu held.
func (p *pool) add(c *conn) {
	if p.byEndpoint == nil {
		p.byEndpoint = make(map[int64][]*conn)
	}
	p.byEndpoint[c.endpoint] = append(p.byEndpoint[c.endpoint], c)
	c.older, c.newer = p.newest, nil
	if p.newest != nil {
		p.newest.newer = c
	} else {
		p.oldest = c
	}
	p.newest = c
	if c.place != nil {
		c.place.crowd.addIdle(c)
	}
	p.count++
	c.idle = true
}

func (p *pool) remove(c *conn) {
	list := p.byEndpoint[c.endpoint]
	i := slices.Index(list, c)
	if list = slices.Delete(list, i, i+1); len(list) == 0 {
		delete(p.byEndpoint, c.endpoint)
	} else {
		p.byEndpoint[c.endpoint] = list
	}
	if c.older != nil {
		c.older.newer = c.newer
	} else {
		p.oldest = c.newer
	}
	if c.newer != nil {
		c.newer.older = c.older
	} else {
		p.newest = c.older
	}
	c.older, c.newer = nil, nil
	if c.place != nil {
		c.place.crowd.removeIdle(c)
	}
	p.count--
	c.idle = false
}
