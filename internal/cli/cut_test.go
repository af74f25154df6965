package cli_test

import (
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/posthorn/posthorn/client"
)

// wire is a way to the server that can be cut.
type wire struct {
	ln     net.Listener
	server string
	mu     sync.Mutex
	cut    bool
	open   map[net.Conn]bool
}

func newWire(t *testing.T, server string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, server: server, open: map[net.Conn]bool{}}
	var pipes sync.WaitGroup
	pipes.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			pipes.Go(func() { w.pipe(c) })
		}
	})
	t.Cleanup(func() { ln.Close(); w.set(true); pipes.Wait() })
	return w
}

// track notes a connection; false when the wire is cut.
func (w *wire) track(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.cut {
		w.open[c] = true
	}
	return !w.cut
}

func (w *wire) pipe(c net.Conn) {
	defer c.Close()
	up, err := net.Dial("tcp", w.server)
	if err != nil {
		return
	}
	defer up.Close()
	if !w.track(c) || !w.track(up) {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { io.Copy(up, c); up.Close() })
	both.Go(func() { io.Copy(c, up); c.Close() })
	both.Wait()
	w.mu.Lock()
	delete(w.open, c)
	delete(w.open, up)
	w.mu.Unlock()
}

// set cuts the wire, with all that is on it, or mends it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.open {
		if cut {
			c.Close()
		}
	}
}

// The connection of listen is cut, and no new one can be made for as long as events
// are published; three times. All of them arrive then, each once, in their order and
// byte for byte as an endpoint gets them.
func TestListenSurvivesACutConnection(t *testing.T) {
	s, acme, _ := service(t)
	way := newWire(t, strings.TrimPrefix(s.URL, "http://"))
	h, direct := newHook(t), newHook(t)
	if _, err := acme.CreateEndpoint(t.Context(), client.NewEndpoint{URL: direct.URL, Events: []string{"cases.*"}}); err != nil {
		t.Fatal(err)
	}
	environ := []string{"POSTHORN_SERVER=http://" + way.ln.Addr().String(), "POSTHORN_TOKEN=" + s.Token}
	listen := start(t, environ, "listen", "--forward-to", h.URL)
	listen.says("Ready")

	n := 0
	publish := func(events int) {
		for range events {
			n++
			data := fmt.Sprintf("{ \"n\":%d, \"big\":1152921504606846977,\r\n\"s\":\"\\/ä\" }", n)
			if _, err := acme.Send(t.Context(), client.Event{ID: fmt.Sprint("e-", n), Type: "cases.updated", Data: []byte(data)}); err != nil {
				t.Fatal(err)
			}
		}
	}
	arrived := func() {
		t.Helper()
		eventually(t, "the last event", func() bool { return h.bodies(fmt.Sprint("e-", n)) != nil && direct.bodies(fmt.Sprint("e-", n)) != nil })
	}
	for i := range 3 { // the first time before anything came
		way.set(true)
		publish(20)
		eventually(t, "the loss to be seen", func() bool { return strings.Count(listen.talk.String(), "The connection is lost") > i })
		publish(20)
		if last := h.bodies(fmt.Sprint("e-", n)); last != nil {
			t.Fatal("the wire is not cut")
		}
		way.set(false)
		arrived()
	}
	eventually(t, "all at the endpoint", func() bool {
		for i := 1; i <= n; i++ {
			if direct.bodies(fmt.Sprint("e-", i)) == nil {
				return false
			}
		}
		return true
	})
	for i := 1; i <= n; i++ {
		id := fmt.Sprint("e-", i)
		if got, want := h.bodies(id), direct.bodies(id); len(got) != 1 || got[0] != want[0] {
			t.Errorf("%s came as %q, the endpoint got %q", id, got, want)
		}
	}
	if got := strings.Count(listen.talk.String(), "Connected again"); got != 3 {
		t.Errorf("connected again %d times:\n%s", got, listen.talk.String())
	}
	var order []string
	for line := range strings.Lines(listen.out.String()) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "e-") {
				order = append(order, word)
			}
		}
	}
	for i, id := range order {
		if id != fmt.Sprint("e-", i+1) {
			t.Fatalf("the order is %v", order)
		}
	}
	listen.interrupt()
	listen.exits(0)
}
