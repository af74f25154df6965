// Package ill makes databases ill: a Wire stands between one node and PostgreSQL,
// knows which statement passes, and holds, delays, loses or silences it, before
// the server acts or after it did. It is for tests alone; no product code imports
// it.
package ill

import (
	"errors"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// State is that of a whole wire.
type State int

const (
	Open   State = iota // everything passes, but for what is struck
	Silent              // nothing passes and nobody is told, as when a cable is out; it passes late, when the wire is open again
	Broken              // connections are reset, those that are held or silenced too, and new ones refused
)

// Wire is the network between one node and the database.
type Wire struct {
	dir  string // holds its socket
	addr string
	open sync.WaitGroup

	mu      sync.Mutex
	server  string // the server's socket
	state   State
	links   map[*link]bool
	armed   []*Strike
	records []*record
}

// New makes a wire to the server whose socket is in a folder. It listens on a
// socket of its own and on a TCP port of the loopback, and ends with the test: then
// every connection breaks.
func New(t testing.TB, dir string) *Wire {
	t.Helper()
	own, err := os.MkdirTemp("", "pg-wire-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(own) })
	local, err := net.Listen("unix", socketIn(own))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	remote, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &Wire{dir: own, addr: remote.Addr().String(), server: socketIn(dir), links: map[*link]bool{}}
	t.Cleanup(func() {
		local.Close()
		remote.Close()
		w.Set(Broken)
		w.open.Wait()
	})
	for _, ln := range []net.Listener{local, remote} {
		w.open.Go(func() { w.accept(ln) })
	}
	return w
}

func socketIn(dir string) string { return filepath.Join(dir, ".s.PGSQL.5432") }

// URL is the address of a database behind the wire, by its socket.
func (w *Wire) URL(database string) string { return pgtest.SocketURL(w.dir, database) }

// TCP is the address of a database behind the wire, by TCP.
func (w *Wire) TCP(database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: w.addr, Path: "/" + database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Addr is the host and port where the wire listens.
func (w *Wire) Addr() string { return w.addr }

// Lead has new connections go to another server, whose socket is in a folder, as a
// name in the DNS does that is moved.
func (w *Wire) Lead(dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.server = socketIn(dir)
}

// Set changes the state of the wire, for all its connections.
func (w *Wire) Set(state State) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state = state
	for l := range w.links {
		if state == Broken {
			l.close()
		}
		l.quiet(state == Silent)
	}
}

func (w *Wire) accept(ln net.Listener) {
	for {
		node, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			w.open.Go(func() { w.connect(node) })
		}
	}
}

// connect serves a connection of the node until it ends.
func (w *Wire) connect(node net.Conn) {
	defer node.Close()
	w.mu.Lock()
	server := w.server
	w.mu.Unlock()
	db, err := net.Dial("unix", server)
	if err != nil {
		return
	}
	defer db.Close()
	l := newLink(w, node, db)
	w.mu.Lock()
	if w.state == Broken {
		w.mu.Unlock()
		return
	}
	l.silent = w.state == Silent
	w.links[l] = true
	w.mu.Unlock()
	l.run()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.links, l)
}
