package send_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
)

// The dial hook serves a network in memory, where time is virtual.
func TestVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pipes := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
		delay := 14 * time.Second
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			select {
			case <-time.After(delay):
			case <-r.Context().Done():
			}
			io.WriteString(w, "ok")
		})}
		go server.Serve(pipes)
		var dialled []string
		c, err := send.New(send.Config{AllowHTTP: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			dialled = append(dialled, network+" "+addr)
			return pipes.dial(ctx)
		}})
		if err != nil {
			t.Fatal(err)
		}
		req := request("http://receiver.test:8080/")
		req.Timeout = 15 * time.Second
		for range 2 {
			a := c.Send(t.Context(), req)
			if !a.Succeeded() || a.Duration != delay || string(a.Snippet) != "ok" {
				t.Errorf("class %v after %v", a.Class, a.Duration)
			}
		}
		if diff := cmp.Diff([]string{"tcp receiver.test:8080"}, dialled); diff != "" {
			t.Errorf("dialled (-want +got):\n%s", diff)
		}
		<-time.After(61 * time.Second) // the idle connection goes
		delay = 16 * time.Second
		if a := c.Send(t.Context(), req); a.Class != posthorn.ClassTimeout || a.Duration != 15*time.Second {
			t.Errorf("class %v after %v", a.Class, a.Duration)
		}
		if len(dialled) != 2 {
			t.Errorf("dialled %q: a connection idle for a minute was used", dialled)
		}
		c.Close()
		server.Close()
	})
}

type pipeListener struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error   { l.once.Do(func() { close(l.done) }); return nil }
func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }
