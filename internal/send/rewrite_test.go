package send_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

// brittle is a connection that breaks under a write: at write number at, after
// taken bytes of it.
type brittle struct {
	net.Conn
	at, taken, writes int
}

func (b *brittle) Write(p []byte) (int, error) {
	if b.writes++; b.writes < b.at {
		return b.Conn.Write(p)
	}
	n, _ := b.Conn.Write(p[:b.taken])
	return n, &net.OpError{Op: "write", Net: "tcp", Err: errors.New("broken pipe")}
}

// A request whose write failed with no byte written is begun again, once, if the
// connection was a kept one. With a byte written it is not: the receiver may
// have more of it than we know.
func TestRequestIsBegunAgainOnce(t *testing.T) {
	for _, tt := range []struct {
		name     string
		at       int // the write that breaks
		taken    int
		body     int
		class    posthorn.Class // of the second attempt
		dials    int
		requests int
	}{
		{"kept, nothing written", 2, 0, 10, posthorn.ClassOK, 2, 2},
		{"kept, large, nothing written", 2, 0, 100 << 10, posthorn.ClassOK, 2, 2},
		{"kept, one byte written", 2, 1, 10, posthorn.ClassReset, 1, 1},
		{"kept, large, head written", 3, 0, 100 << 10, posthorn.ClassReset, 1, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials, requests := 0, make(chan struct{}, 10)
				c, err := send.New(send.Config{AllowHTTP: true, Dial: func(context.Context, string, string) (net.Conn, error) {
					dials++
					ours, theirs := net.Pipe()
					go func() {
						defer theirs.Close()
						r, br := &receiver{}, bufio.NewReader(theirs)
						for {
							if _, err := r.Read(br); err != nil {
								return
							}
							requests <- struct{}{}
							io.WriteString(theirs, accepted)
						}
					}()
					if dials > 1 {
						return ours, nil
					}
					return &brittle{Conn: ours, at: tt.at, taken: tt.taken}, nil
				}})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				req := request("http://receiver.example/")
				if a := c.Send(t.Context(), req); !a.Succeeded() {
					t.Fatalf("first: %s", a.Explain())
				}
				req.Body = make([]byte, tt.body)
				a := c.Send(t.Context(), req)
				if a.Class != tt.class || a.Duration > time.Second {
					t.Errorf("second: class %v after %v, want %v", a.Class, a.Duration, tt.class)
				}
				synctest.Wait()
				if dials != tt.dials || len(requests) != tt.requests {
					t.Errorf("%d dials, %d requests, want %d, %d", dials, len(requests), tt.dials, tt.requests)
				}
			})
		})
	}
}

// A new connection that breaks at once is the receiver's doing: no second dial.
func TestNewConnectionIsNotDialledAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dials := 0
		c, err := send.New(send.Config{AllowHTTP: true, Dial: func(context.Context, string, string) (net.Conn, error) {
			dials++
			ours, _ := net.Pipe()
			return &brittle{Conn: ours, at: 1}, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if a := c.Send(t.Context(), request("http://receiver.example/")); a.Class != posthorn.ClassReset || dials != 1 {
			t.Errorf("class %v after %d dials", a.Class, dials)
		}
		c.Close()
	})
}

// The operator's log has the address that tenants are not told, and nothing of
// the URL that may be secret.
func TestLogIsForTheOperator(t *testing.T) {
	var out bytes.Buffer
	dns := hell.NewNameServer(t, func(string, int) ([]string, int) { return []string{"10.20.30.40"}, 0 })
	c := newClient(t, func(c *send.Config) {
		c.Log = slog.New(slog.NewTextHandler(&out, nil))
		c.Resolver = dns.Resolver()
	})
	a := mustSend(t, c, request("http://receiver.example.com/hooks/secret?token=secret"))
	if a.Class != posthorn.ClassRefused || strings.Contains(a.Explain(), "10.20") {
		t.Errorf("class %v: %s", a.Class, a.Explain())
	}
	for _, want := range []string{"level=WARN", "10.20.30.40:80", "host=receiver.example.com", "class=refused_by_policy", "delivery=dlv_"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %q: %s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "secret") {
		t.Errorf("the log holds the URL's path or query: %s", out.String())
	}
}
