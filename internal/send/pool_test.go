package send

import (
	"net"
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func pipeConn(endpoint int64) (*conn, net.Conn) {
	ours, theirs := net.Pipe()
	return newConn(ours, ours, endpoint, "http://x"), theirs
}

// The connections of all endpoints together are bounded; the one unused for
// longest goes first.
func TestIdleConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool{most: 2048}
		var peers []net.Conn
		for i := range p.most + 10 {
			c, peer := pipeConn(int64(i % 100))
			peers = append(peers, peer)
			p.put(c)
			advance(time.Millisecond)
		}
		synctest.Wait()
		if p.count != p.most {
			t.Errorf("%d idle connections", p.count)
		}
		for i, peer := range peers {
			peer.SetReadDeadline(time.Now())
			_, err := peer.Read(make([]byte, 1))
			if gone := !isTimeout(err); gone != (i < 10) {
				t.Errorf("connection %d is gone: %v", i, gone)
			}
		}
		p.close()
		if p.count != 0 || len(p.byEndpoint) != 0 || p.oldest != nil || p.newest != nil {
			t.Errorf("after close: %d, %d", p.count, len(p.byEndpoint))
		}
	})
}

func TestIdleConnectionsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p pool
		silent, _ := pipeConn(1)
		closing, closer := pipeConn(2)
		talking, talker := pipeConn(3)
		p.put(silent)
		p.put(closing)
		p.put(talking)
		closer.Close()
		go talker.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n"))
		synctest.Wait()
		if p.get(2, "http://x") != nil || p.get(3, "http://x") != nil || p.get(4, "http://x") != nil {
			t.Error("a closed, a talking or another's connection was handed out")
		}
		if p.get(1, "https://x") != nil {
			t.Error("a connection to another origin was handed out")
		}
		silent, _ = pipeConn(1)
		p.put(silent)
		advance(idleTime - time.Second)
		if p.get(1, "http://x") != silent {
			t.Error("a good connection was not handed out")
		}
		p.put(silent)
		advance(idleTime + time.Second)
		if p.get(1, "http://x") != nil || p.count != 0 {
			t.Error("a connection outlived its idle time")
		}
		p.close()
	})
}

// advance lets the bubble's time pass.
func advance(d time.Duration) { <-time.After(d) }

// A connection that was just used has no goroutine; taking it notices that the
// receiver closed it or spoke. One that nobody takes is watched in the end.
func TestAFreshConnectionIsLookedAtAndAnIdleOneWatched(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dial := func(endpoint int64) (c *conn, peer net.Conn) {
		ours, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		if peer, err = l.Accept(); err != nil {
			t.Fatal(err)
		}
		return newConn(ours, ours, endpoint, "http://x"), peer
	}
	if c, peer := dial(0); c.socket == nil {
		peer.Close()
		t.Skip("sockets cannot be looked into here")
	}
	var p pool
	defer p.close()
	for i, spoil := range []func(net.Conn){
		func(net.Conn) {},
		func(peer net.Conn) { peer.Close() },
		func(peer net.Conn) { peer.Write([]byte("HTTP/1.1 408 Request Timeout\r\n\r\n")) },
	} {
		c, peer := dial(int64(i))
		defer peer.Close()
		p.put(c)
		if c.watched != nil {
			t.Error("a connection that was just used has a watcher")
		}
		spoil(peer)
		for deadline := time.Now().Add(5 * time.Second); i > 0 && c.socket.open() && time.Now().Before(deadline); {
			runtime.Gosched() // the loopback delivers what the peer did
		}
		if got := p.get(int64(i), "http://x"); (got == c) != (i == 0) {
			t.Errorf("case %d: handed out %v", i, got != nil)
		}
	}
	c, peer := dial(9)
	p.put(c)
	p.mu.Lock()
	c.since = c.since.Add(-watchAfter)
	p.watchIdle()
	watched := c.watched != nil
	p.mu.Unlock()
	if !watched {
		t.Fatal("an idle connection has no watcher")
	}
	peer.Close()
	for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		p.mu.Lock()
		n := p.count
		p.mu.Unlock()
		if n == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("an idle connection that the receiver closed is kept")
		}
	}
}

// A busy endpoint's connection has no watcher: its age is looked at when it is taken.
func TestAConnectionPastItsAgeIsNotHandedOut(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var p pool
	defer p.close()
	c := newConn(nc, nc, 1, "http://x")
	if life := time.Until(c.until); life > maxAge || life < maxAge*7/10 {
		t.Errorf("a new connection is to be used for %v", life)
	}
	p.put(c)
	if c.watched != nil {
		t.Skip("sockets cannot be looked into here: each connection is watched")
	}
	if p.get(1, "http://x") != c {
		t.Error("a young connection was not handed out")
	}
	c.until = time.Now()
	p.put(c)
	if p.get(1, "http://x") != nil {
		t.Error("a connection was handed out that had lived its time")
	}
	if _, err := nc.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}
