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
	"github.com/posthorn/posthorn/internal/hell"
)

// TestAnswers goes through what receivers answer, good and hostile, over real
// sockets. Each row is one attempt, and one request on the wire.
func TestAnswers(t *testing.T) {
	for _, tt := range hell.Answers {
		t.Run(tt.Name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, nil, tt.Serve)
			c := newClient(t, nil)
			req := request(r.URL())
			req.Timeout = 3 * time.Second
			a := mustSend(t, c, req)
			if a.Class != tt.Class || a.Status != tt.Status || a.BodyNote != tt.Note || a.Detail != tt.Detail {
				t.Errorf("class %v, status %d, body note %q, detail %q; want %v, %d, %q, %q",
					a.Class, a.Status, a.BodyNote, a.Detail, tt.Class, tt.Status, tt.Note, tt.Detail)
			}
			if len(a.Snippet) > posthorn.MaxSnippet || a.Succeeded() && len(a.Snippet) > posthorn.MaxSuccessSnippet {
				t.Errorf("%d bytes of the body are kept", len(a.Snippet))
			}
			if strings.Contains(a.Explain(), "127.0.0.1") {
				t.Errorf("the explanation holds an address: %s", a.Explain())
			}
			if conns, requests := r.Counts(); conns != 1 || requests != 1 {
				t.Errorf("%d connections and %d requests on the wire, want one each", conns, requests)
			}
		})
	}
}

func TestReceiverThatNeverReads(t *testing.T) {
	block := make(chan struct{})
	r := listen(t, nil, func(_ *receiver, c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-block
	})
	defer close(block)
	req := request(r.URL())
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
		req := request(r.URL())
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
		io.WriteString(c, strings.Repeat("A: "+strings.Repeat("b", 250)+"\r\n", 250)+"\r\n")
		hell.Flood(c, []byte(chunk))
	}))
	c := newClient(t, nil)
	mustSend(t, c, request(r.URL()))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 20 {
		if a := mustSend(t, c, request(r.URL())); a.Status != 500 {
			t.Fatalf("class %v: %s", a.Class, a.Explain())
		}
	}
	runtime.ReadMemStats(&after)
	// The scripted receiver reads the requests in the same process: both count.
	if per := (after.TotalAlloc - before.TotalAlloc) / 20; per > 1<<20 {
		t.Errorf("%d KiB allocated for an attempt, want at most 1 MiB", per>>10)
	}
}
