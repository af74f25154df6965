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

// A name that moves is followed though its old address goes on answering: a
// connection that is never idle ends all the same, and not all end at one time.
func TestAKeptConnectionHasAnAge(t *testing.T) {
	for _, pause := range []time.Duration{100 * time.Millisecond, time.Second, 20 * time.Second, 59 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			pipes := &pipeListener{conns: make(chan net.Conn), done: make(chan struct{})}
			began := time.Now()
			var made, lasted []time.Duration // of each connection, since the beginning and since it was made
			server := &http.Server{
				ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
					made, lasted = append(made, time.Since(began)), append(lasted, 0)
					return context.WithValue(ctx, connKey{}, len(made)-1)
				},
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					i := r.Context().Value(connKey{}).(int)
					lasted[i] = time.Since(began) - made[i]
				}),
			}
			go server.Serve(pipes)
			c, err := send.New(send.Config{AllowHTTP: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
				return pipes.dial(ctx)
			}})
			if err != nil {
				t.Fatal(err)
			}
			for time.Since(began) < time.Hour {
				if a := c.Send(t.Context(), request("http://receiver.test:8080/")); !a.Succeeded() {
					t.Fatal(a.Explain())
				}
				<-time.After(pause)
			}
			ages := map[time.Duration]bool{}
			for _, age := range lasted[:len(lasted)-1] {
				if age > 5*time.Minute || age < 4*time.Minute-pause {
					t.Errorf("every %v: a connection was used for %v", pause, age)
				}
				ages[age] = true
			}
			if len(ages) < 2 && pause < 20*time.Second {
				t.Errorf("every %v: all %d connections were used for the same time", pause, len(lasted))
			}
			c.Close()
			server.Close()
		})
	}
}

type connKey struct{}
