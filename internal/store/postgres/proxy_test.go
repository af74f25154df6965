package postgres_test

import (
	"bytes"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// proxy stands between a node and the database and can part them.
type proxy struct {
	t      *testing.T
	dir    string
	server string // the server's socket

	mu     sync.Mutex
	gate   sync.Cond
	silent bool   // nothing passes, as when a cable is out
	refuse bool   // connections break and no new ones are made
	trap   []byte // when a node's message holds it, the connection breaks…
	after  bool   // …when the database answers it, or before it gets it
	sprung int
	links  map[net.Conn]bool
}

func newProxy(t *testing.T, socket string) *proxy {
	dir, err := os.MkdirTemp("", "pg-proxy-") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, dir: dir, server: filepath.Join(socket, ".s.PGSQL.5432"), links: map[net.Conn]bool{}}
	p.gate.L = &p.mu
	ln, err := net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ln.Close()
		p.set(func() { p.refuse, p.silent = true, false })
		os.RemoveAll(dir)
	})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.link(c)
		}
	}()
	return p
}

// url is the address of a database as the node behind the proxy sees it.
func (p *proxy) url(address string) string { return pgtest.SocketURL(p.dir, pgtest.Name(address)) }

// set changes how the proxy behaves.
func (p *proxy) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
	if p.refuse {
		for c := range p.links {
			c.Close()
		}
	}
	p.gate.Broadcast()
}

func (p *proxy) link(node net.Conn) {
	defer node.Close()
	db, err := net.Dial("unix", p.server)
	if err != nil {
		return
	}
	defer db.Close()
	p.mu.Lock()
	if p.refuse {
		p.mu.Unlock()
		return
	}
	p.links[node], p.links[db] = true, true
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, node)
		delete(p.links, db)
	}()
	var swallow atomic.Bool // the next answer does not arrive, and nothing after it
	go func() {
		_ = p.pass(node, db, false, &swallow)
		node.Close()
		db.Close()
	}()
	_ = p.pass(db, node, true, &swallow)
}

// pass copies what comes from src.
func (p *proxy) pass(dst, src net.Conn, fromNode bool, swallow *atomic.Bool) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if err != nil {
			return err
		}
		p.mu.Lock()
		for p.silent && !p.refuse {
			p.gate.Wait()
		}
		sprung := fromNode && p.trap != nil && bytes.Contains(buf[:n], p.trap)
		if sprung {
			p.trap = nil
			p.sprung++
			swallow.Store(p.after)
		}
		p.mu.Unlock()
		if sprung && !swallow.Load() || !fromNode && swallow.Load() {
			return io.EOF
		}
		if _, err := dst.Write(buf[:n]); err != nil {
			return err
		}
	}
}
