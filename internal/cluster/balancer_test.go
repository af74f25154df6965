package cluster

import (
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// balancer stands before the nodes as the load balancers do that people have: it asks
// each node's /readyz once a second, sends to those alone that said yes, in turn, keeps
// its connections to them, and repeats nothing: not even a request of which it
// wrote no byte. It balances requests at web and connections at wire. What comes while no node
// is ready waits for one.
type balancer struct {
	web, wire string // URLs
	backends  []*backend
	turn      atomic.Int64
}

type backend struct {
	address string
	proxy   *httputil.ReverseProxy
	ready   atomic.Bool
}

// lookEvery is how often the balancer asks.
const lookEvery = time.Second

func newBalancer(t *testing.T, w *world) *balancer {
	t.Helper()
	b := &balancer{}
	looks := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	stop := make(chan struct{})
	var running sync.WaitGroup
	for _, n := range w.nodes {
		to, err := url.Parse(n.URL())
		if err != nil {
			t.Fatal(err)
		}
		kept := &http.Transport{MaxIdleConnsPerHost: publishers}
		t.Cleanup(kept.CloseIdleConnections)
		e := &backend{address: to.Host, proxy: &httputil.ReverseProxy{
			Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(to) },
			Transport: kept,
			ErrorLog:  log.New(io.Discard, "", 0), // its 502 is what counts
		}}
		b.backends = append(b.backends, e)
		running.Go(func() { e.look(looks, stop) })
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if e := b.next(r.Context().Done()); e != nil {
			e.proxy.ServeHTTP(w, r)
		}
	}))
	wire, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b.web, b.wire = web.URL, "http://"+wire.Addr().String()
	running.Go(func() { b.acceptWires(wire, stop, &running) })
	t.Cleanup(func() {
		close(stop)
		wire.Close()
		web.CloseClientConnections()
		web.Close()
		running.Wait()
	})
	return b
}

// look asks a node every second whether it should get traffic.
func (e *backend) look(c *http.Client, stop <-chan struct{}) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		resp, err := c.Get("http://" + e.address + "/readyz")
		if err == nil {
			resp.Body.Close()
		}
		e.ready.Store(err == nil && resp.StatusCode == http.StatusOK)
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// next is the next node that is ready, or nil when given up.
func (b *balancer) next(given <-chan struct{}) *backend {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		for range b.backends {
			if e := b.backends[int(b.turn.Add(1))%len(b.backends)]; e.ready.Load() {
				return e
			}
		}
		select {
		case <-tick.C:
		case <-given:
			return nil
		}
	}
}

// acceptWires gives each connection to a node, whatever is said on it.
func (b *balancer) acceptWires(ln net.Listener, stop <-chan struct{}, running *sync.WaitGroup) {
	for {
		from, err := ln.Accept()
		if err != nil {
			return
		}
		running.Go(func() {
			defer from.Close()
			e := b.next(stop)
			if e == nil {
				return
			}
			to, err := net.Dial("tcp", e.address)
			if err != nil {
				return
			}
			defer to.Close()
			ended := make(chan struct{}, 2)
			for _, way := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() {
					_, _ = io.Copy(way[1], way[0]) // whoever ends it, both ends see it
					ended <- struct{}{}
				}()
			}
			select {
			case <-ended:
			case <-stop:
			}
		})
	}
}
