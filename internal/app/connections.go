package app

import (
	"container/list"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
)

// connections is a listener that has at most max connections open. When another
// one comes, the one that has waited longest for a request, or for the rest of a
// request's headers, gives its place: whoever holds connections without using
// them, on purpose or not, keeps nobody out. A connection on which a request is
// being answered is never closed; when all are busy, the new one is closed.
type connections struct {
	net.Listener
	max int

	mu      sync.Mutex
	open    int
	evicted int
	refused int
	waiting list.List // of *connection, the longest waiting first
}

type connection struct {
	net.Conn
	of *connections
	// Guarded by of.mu: place is nil while requests are being answered.
	place    *list.Element
	requests int
	closed   bool
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
// there is no place for it.
func (l *connections) admit(raw net.Conn) (c, evicted *connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open >= l.max {
		oldest := l.waiting.Front()
		if oldest == nil {
			l.refused++
			return nil, nil
		}
		evicted = oldest.Value.(*connection)
		l.forget(evicted)
		l.evicted++
	}
	l.open++
	c = &connection{Conn: raw, of: l}
	c.place = l.waiting.PushBack(c)
	return c, evicted
}

// forget is called with mu held.
func (l *connections) forget(c *connection) {
	if c.closed {
		return
	}
	c.closed = true
	l.open--
	if c.place != nil {
		l.waiting.Remove(c.place)
		c.place = nil
	}
}

// Close implements [net.Conn].
func (c *connection) Close() error {
	c.of.mu.Lock()
	c.of.forget(c)
	c.of.mu.Unlock()
	return c.Conn.Close()
}

// begin and end enclose the answering of a request. With HTTP/2 a connection may
// have several at a time.
func (c *connection) begin() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.requests++; c.place != nil {
		c.of.waiting.Remove(c.place)
		c.place = nil
	}
}

func (c *connection) end() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.requests--; c.requests == 0 && !c.closed {
		c.place = c.of.waiting.PushBack(c)
	}
}

// figures are for the metrics.
func (l *connections) figures() (open, evicted, refused int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.open, l.evicted, l.refused
}

type connectionKey struct{}

// remember is the server's ConnContext.
func (l *connections) remember(ctx context.Context, c net.Conn) context.Context {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	return context.WithValue(ctx, connectionKey{}, c)
}

// marking tells a request's connection when it is being answered.
func marking(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connectionKey{}).(*connection); ok {
			c.begin()
			defer c.end()
		}
		next.ServeHTTP(w, r)
	})
}
