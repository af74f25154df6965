package send

import (
	"net"
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
		var p pool
		var peers []net.Conn
		for i := range maxIdle + 10 {
			c, peer := pipeConn(int64(i % 100))
			peers = append(peers, peer)
			p.put(c)
			advance(time.Millisecond)
		}
		synctest.Wait()
		if p.count != maxIdle {
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
