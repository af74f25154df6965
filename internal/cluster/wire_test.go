package cluster

import (
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
)

// wire is the network between one node and the database.
type wire struct {
	addr string

	mu     sync.Mutex
	gate   sync.Cond
	server string // the server's socket
	state  wireState
	links  map[net.Conn]bool
}

type wireState int

const (
	open   wireState = iota
	silent           // nothing passes and nobody is told, as when a cable is out
	broken           // connections are reset and new ones refused
)

func newWire(t *testing.T, dir string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{addr: ln.Addr().String(), server: socketIn(dir), links: map[net.Conn]bool{}}
	w.gate.L = &w.mu
	t.Cleanup(func() {
		ln.Close()
		w.set(broken)
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go w.link(c)
		}
	}()
	return w
}

func socketIn(dir string) string { return filepath.Join(dir, ".s.PGSQL.5432") }

// url is the address of the database as its node sees it.
func (w *wire) url() string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: w.addr, Path: "/postgres", RawQuery: "sslmode=disable"}
	return u.String()
}

func (w *wire) set(state wireState) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	if state == broken {
		for c := range w.links {
			c.Close()
		}
	}
	w.gate.Broadcast()
}

// lead has new connections go to another server, as a name in the DNS does that
// is moved.
func (w *wire) lead(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = socketIn(dir)
}

func (w *wire) link(node net.Conn) {
	defer node.Close()
	w.mu.Lock()
	server := w.server
	w.mu.Unlock()
	db, err := net.Dial("unix", server)
	if err != nil {
		return
	}
	defer db.Close()
	w.mu.Lock()
	if w.state == broken {
		w.mu.Unlock()
		return
	}
	w.links[node], w.links[db] = true, true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.links, node)
		delete(w.links, db)
	}()
	go func() {
		_ = w.pass(node, db) // it broke, or one side ended
		node.Close()
		db.Close()
	}()
	_ = w.pass(db, node)
}

func (w *wire) pass(dst, src net.Conn) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return err
		}
		w.mu.Lock()
		for w.state == silent {
			w.gate.Wait()
		}
		gone := w.state == broken
		w.mu.Unlock()
		if gone {
			return io.EOF
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
	}
}
