package app

import (
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/web"
)

// A connection that is closed while its client still writes is reset, and the reset
// takes away the answer that the client has not read yet (RFC 9112, 9.6). So where a
// request is answered before its body was read, the connection says that no more comes
// and goes on reading, within these bounds.
const (
	lingerTime  = 30 * time.Second // in all
	lingerIdle  = 5 * time.Second  // without a byte
	lingerBytes = 2 << 30
	// How many connections do so at the same time. The others are reset.
	lingersInAll   = 256
	lingersOfParty = 64
)

// Over HTTP/2 the stream is reset behind the answer, which takes nothing else with it
// (RFC 9113, 8.1), but some clients drop a refusal then (curl 7). They have a moment to
// take it, and stop their sending themselves.
const (
	sweepTime  = 5 * time.Second
	sweepIdle  = 500 * time.Millisecond
	sweepBytes = 64 << 20
)

// readByServer is what net/http reads itself of a body that its handler has left, over
// HTTP/1.
const readByServer = 256 << 10

// watched is a body that remembers how much of it is unread.
type watched struct {
	io.ReadCloser
	left  int64 // if its length is known; else below zero
	ended bool
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	b.ended = b.ended || b.left == 0 || err == io.EOF
	return n, err
}

// watch returns the request with a body that is watched; nil where that is not needed.
func watch(r *http.Request) (*http.Request, *watched) {
	small := r.ContentLength >= 0 && r.ContentLength < readByServer && r.Header["Expect"] == nil
	if r.ContentLength == 0 || small && r.ProtoMajor == 1 {
		return r, nil
	}
	body := &watched{ReadCloser: r.Body, left: r.ContentLength}
	r = r.WithContext(r.Context()) // the server keeps its own Body
	r.Body = body
	return r, body
}

// leave sees to what is left of the body, which is that of watch, once the request is
// answered. It is not for an answer that was broken off.
func (c *connection) leave(w http.ResponseWriter, r *http.Request, body *watched) {
	unread := body != nil && !body.ended
	c.unread.Store(unread && r.ProtoMajor == 1)
	if unread && r.ProtoMajor == 2 && w.Header().Get("Content-Type") == web.ProblemType {
		c.change(0, 1) // it is being read, for those who look for a place
		defer c.Received()
		sweep(w, body)
	}
}

// sweep sends the answer and reads on for a while, until the client has ended.
func sweep(w http.ResponseWriter, body io.Reader) {
	stream := http.NewResponseController(w)
	if stream.Flush() == nil {
		discard(body, stream.SetReadDeadline, sweepTime, sweepIdle, sweepBytes)
	}
}

type halfCloser interface{ CloseWrite() error }

// CloseWrite is called by net/http when it closes a connection by which more may come.
func (c *connection) CloseWrite() error {
	c.unread.Store(true)
	if h, ok := c.Conn.(halfCloser); ok {
		return h.CloseWrite()
	}
	return nil
}

// linger has the connection closed once its client has ended, and reports whether it
// does. Until then it counts as one that waits, whose place is the first to be taken.
func (l *connections) linger(c *connection) bool {
	h, ok := c.Conn.(halfCloser)
	if !ok {
		return false
	}
	who, open := l.partyOf(c)
	if !open || l.lingering.Take(who, 1) != nil {
		return false
	}
	go func() {
		defer l.lingering.Give(who, 1)
		defer c.shut()
		if h.CloseWrite() == nil {
			discard(c.Conn, c.Conn.SetReadDeadline, lingerTime, lingerIdle, lingerBytes)
		}
	}()
	return true
}

// partyOf is whom the connection counts for; open is false for one that was closed.
func (l *connections) partyOf(c *connection) (who share.Party, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.by.who, !c.closed
}

var unwanted = sync.Pool{New: func() any { return new([64 << 10]byte) }}

// discard reads until the client has ended, or a bound is reached: of the whole time,
// of the time without a byte, of the bytes.
func discard(from io.Reader, deadline func(time.Time) error, whole, idle time.Duration, most int64) {
	buf := unwanted.Get().(*[64 << 10]byte)
	defer unwanted.Put(buf)
	end := time.Now().Add(whole)
	for most > 0 {
		next := time.Now().Add(idle)
		if next.After(end) {
			next = end
		}
		if deadline(next) != nil {
			return
		}
		n, err := from.Read(buf[:])
		if err != nil {
			return
		}
		most -= int64(n)
	}
}

// closeAll closes all connections that are left.
func (l *connections) closeAll() {
	for _, c := range l.all() {
		c.shut()
	}
}

func (l *connections) all() (all []*connection) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, by := range l.parties {
		for s := range by.in {
			for e := by.in[s].Front(); e != nil; e = e.Next() {
				all = append(all, e.Value.(*connection))
			}
		}
	}
	return all
}
