package send_test

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

// TestAnswers goes through what receivers answer, good and hostile, over real
// sockets. Each row is one attempt, and one request on the wire.
func TestAnswers(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	big := strings.Repeat("x", 100<<10)
	for _, tt := range []struct {
		name   string
		answer string
		then   func(net.Conn) // before the connection closes
		class  posthorn.Class
		status int
		note   string // BodyNote
		detail string
	}{
		{name: "200", answer: ok + "Content-Length: 2\r\n\r\nok", status: 200},
		{name: "200 without length", answer: ok + "\r\nok", status: 200},
		{name: "202", answer: "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", status: 202},
		{name: "299", answer: "HTTP/1.1 299 Hm\r\nContent-Length: 0\r\n\r\n", status: 299},
		{name: "HTTP/1.0", answer: "HTTP/1.0 200 OK\r\n\r\nok", status: 200},
		{name: "204 with a body", answer: "HTTP/1.1 204 No Content\r\n\r\nthere is content", status: 204},
		{name: "length too long", answer: ok + "Content-Length: 100\r\n\r\nshort", status: 200, note: "error"},
		{name: "length too short", answer: ok + "Content-Length: 2\r\n\r\nlonger", status: 200},
		{name: "bad chunks", answer: ok + "Transfer-Encoding: chunked\r\n\r\nzz\r\nno", status: 200, note: "error"},
		{name: "cut chunks", answer: ok + "Transfer-Encoding: chunked\r\n\r\n5\r\nab", status: 200, note: "error"},
		{name: "good chunks", answer: ok + "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", status: 200},
		{name: "dripping body", answer: ok + "\r\n", then: func(c net.Conn) { drip(c, "x", 50*time.Millisecond) }, status: 200, note: "timeout"},
		{name: "body that never comes", answer: ok + "Content-Length: 5\r\n\r\n", then: stall, status: 200, note: "timeout"},
		{name: "endless body", answer: ok + "\r\n", then: func(c net.Conn) { flood(c, big) }, status: 200, note: "truncated"},
		{name: "gzip is not inflated", answer: ok + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b", status: 200},
		{name: "half-close", answer: ok + "\r\nok", then: func(c net.Conn) { c.(*net.TCPConn).CloseWrite(); stall(c) }, status: 200},
		{name: "line feeds only", answer: "HTTP/1.1 200 OK\nContent-Length: 2\n\nok", status: 200},
		{name: "100 first", answer: "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", status: 200},
		{name: "103 first", answer: "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" + ok + "Content-Length: 0\r\n\r\n", status: 200},

		{name: "302", answer: "HTTP/1.1 302 Found\r\nLocation: https://other.example.com/secret?token=1\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassRedirect, status: 302, detail: "to other.example.com"},
		{name: "307 to a path", answer: "HTTP/1.1 307 T\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassRedirect, status: 307, detail: "to another path of the same host"},
		{name: "301 to garbage", answer: "HTTP/1.1 301 M\r\nLocation: http://[::1%25lo]/\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassRedirect, status: 301, detail: "to another host"},
		{name: "300", answer: "HTTP/1.1 300 Multiple\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassHTTPStatus, status: 300},
		{name: "304", answer: "HTTP/1.1 304 Not Modified\r\n\r\n", class: posthorn.ClassHTTPStatus, status: 304},
		{name: "410", answer: "HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassHTTPStatus, status: 410},
		{name: "500", answer: "HTTP/1.1 500 Oh\r\nContent-Length: 4\r\n\r\noops", class: posthorn.ClassHTTPStatus, status: 500},
		{name: "099", answer: "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassHTTPStatus, status: 99},
		{name: "999", answer: "HTTP/1.1 999 High\r\nContent-Length: 0\r\n\r\n", class: posthorn.ClassHTTPStatus, status: 999},
		{name: "endless failure body", answer: "HTTP/1.1 500 Oh\r\n\r\n", then: func(c net.Conn) { flood(c, big) }, class: posthorn.ClassHTTPStatus, status: 500, note: "truncated"},

		{name: "101", answer: "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", then: stall, class: posthorn.ClassProtocol, status: 101, detail: "it switches to another protocol"},
		{name: "endless 1xx", answer: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 10_000), then: stall, class: posthorn.ClassProtocol, detail: "interim answers without end"},
		{name: "1xx with large headers", answer: "HTTP/1.1 103 Early\r\nA: b\r\n\r\nHTTP/1.1 103 Early\r\nA: " + big, then: stall, class: posthorn.ClassProtocol, detail: "interim answers without end"},
		{name: "1xx and close", answer: "HTTP/1.1 100 Continue\r\n\r\n", class: posthorn.ClassReset},
		{name: "1xx and silence", answer: "HTTP/1.1 100 Continue\r\n\r\n", then: stall, class: posthorn.ClassTimeout},
		{name: "status 2000", answer: "HTTP/1.1 2000 OK\r\n\r\n", class: posthorn.ClassProtocol},
		{name: "status of letters", answer: "HTTP/1.1 abc OK\r\n\r\n", class: posthorn.ClassProtocol},
		{name: "two lengths", answer: ok + "Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", class: posthorn.ClassProtocol},
		{name: "negative length", answer: ok + "Content-Length: -1\r\n\r\n", class: posthorn.ClassProtocol},
		{name: "NUL in a header", answer: ok + "X: a\x00b\r\n\r\n", class: posthorn.ClassProtocol},
		{name: "missing colon", answer: ok + "X\r\n\r\n", class: posthorn.ClassProtocol},
		{name: "SSH", answer: "SSH-2.0-OpenSSH_9.6\r\n", then: stall, class: posthorn.ClassProtocol},
		{name: "bare HTML", answer: "<html><body>hello</body></html>", class: posthorn.ClassProtocol},
		{name: "HTTP/2", answer: "HTTP/2.0 200 OK\r\n\r\n", class: posthorn.ClassProtocol, detail: "it is not HTTP/1.1"},
		{name: "HTTP/2 frames", answer: "\x00\x00\x12\x04\x00\x00\x00\x00\x00" + strings.Repeat("\x00", 18), class: posthorn.ClassProtocol},
		{name: "large headers", answer: ok + "X: " + big + "\r\n\r\n", then: stall, class: posthorn.ClassResponseTooLarge, detail: "more than 64 KiB"},
		{name: "many headers", answer: ok + strings.Repeat("A: b\r\n", 20_000) + "\r\n", then: stall, class: posthorn.ClassResponseTooLarge, detail: "more than 64 KiB"},
		{name: "endless line", answer: big, then: stall, class: posthorn.ClassResponseTooLarge, detail: "more than 64 KiB"},
		{name: "dripping headers", answer: ok, then: func(c net.Conn) { drip(c, "X: y\r\n", 50*time.Millisecond) }, class: posthorn.ClassTimeout},
		{name: "no answer", then: stall, class: posthorn.ClassTimeout},
		{name: "close", class: posthorn.ClassReset},
		{name: "close within headers", answer: ok + "X: y\r\n", class: posthorn.ClassReset},
		{name: "reset", then: reset, class: posthorn.ClassReset},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, nil, once(func(c net.Conn) {
				io.WriteString(c, tt.answer)
				if tt.then != nil {
					tt.then(c)
				}
			}))
			c := newClient(t, nil)
			req := request(r.url())
			req.Timeout = 600 * time.Millisecond
			a := mustSend(t, c, req)
			if a.Class != tt.class || a.Status != tt.status || a.BodyNote != tt.note || a.Detail != tt.detail {
				t.Errorf("class %v, status %d, body note %q, detail %q; want %v, %d, %q, %q",
					a.Class, a.Status, a.BodyNote, a.Detail, tt.class, tt.status, tt.note, tt.detail)
			}
			if len(a.Snippet) > posthorn.MaxSnippet || a.Succeeded() && len(a.Snippet) > posthorn.MaxSuccessSnippet {
				t.Errorf("%d bytes of the body are kept", len(a.Snippet))
			}
			if strings.Contains(a.Explain(), "127.0.0.1") {
				t.Errorf("the explanation holds an address: %s", a.Explain())
			}
			if conns, requests := r.counts(); conns != 1 || requests != 1 {
				t.Errorf("%d connections and %d requests on the wire, want one each", conns, requests)
			}
		})
	}
}

// flood writes as long as the other side reads.
func flood(c net.Conn, s string) {
	b := []byte(s)
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

func TestReceiverThatNeverReads(t *testing.T) {
	block := make(chan struct{})
	r := listen(t, nil, func(_ *receiver, c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-block
	})
	defer close(block)
	req := request(r.url())
	req.Body, req.Timeout = make([]byte, 32<<20), 500*time.Millisecond
	if a := mustSend(t, newClient(t, nil), req); a.Class != posthorn.ClassTimeout {
		t.Errorf("class %v, want timeout", a.Class)
	}
}

// A receiver may answer before it has read the request, and close: the answer
// counts where it can still be read.
func TestAnswerBeforeTheRequestIsRead(t *testing.T) {
	for _, tt := range []struct {
		answer string
		class  posthorn.Class
		status int
	}{
		{"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n", posthorn.ClassHTTPStatus, 413},
		{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", posthorn.ClassOK, 200},
	} {
		r := listen(t, nil, func(_ *receiver, c net.Conn) {
			io.WriteString(c, tt.answer)
			bufio.NewReader(c).ReadByte()
			stall(c)
		})
		req := request(r.url())
		req.Body = make([]byte, 4<<20)
		if a := mustSend(t, newClient(t, nil), req); a.Class != tt.class || a.Status != tt.status {
			t.Errorf("class %v, status %d, want %v, %d", a.Class, a.Status, tt.class, tt.status)
		}
	}
}

func TestPortClosed(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	a := mustSend(t, newClient(t, nil), request("http://"+ln.Addr().String()+"/"))
	if a.Class != posthorn.ClassConnect || a.Detail != "connection refused" {
		t.Errorf("class %v, detail %q", a.Class, a.Detail)
	}
}

// Memory stays flat however much a receiver sends.
func TestHostileAnswersTakeLittleMemory(t *testing.T) {
	chunk := strings.Repeat("x", 64<<10)
	r := listen(t, nil, once(func(c net.Conn) {
		io.WriteString(c, "HTTP/1.1 500 Oh\r\n")
		io.WriteString(c, strings.Repeat("A: b\r\n", 9000)+"\r\n")
		flood(c, chunk)
	}))
	c := newClient(t, nil)
	mustSend(t, c, request(r.url()))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		if a := mustSend(t, c, request(r.url())); a.Status != 500 {
			t.Fatalf("class %v: %s", a.Class, a.Explain())
		}
	}
	runtime.ReadMemStats(&after)
	// The scripted receiver reads the requests in the same process: both count.
	if per := (after.TotalAlloc - before.TotalAlloc) / 20; per > 1<<20 {
		t.Errorf("%d KiB allocated for an attempt, want at most 1 MiB", per>>10)
	}
}
