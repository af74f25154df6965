package send

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/webhook"
)

// crowdClient dials connections in memory, at most three of a tenant to an address.
func crowdClient() *Client {
	c := &Client{dialOne: func(_ context.Context, a netip.AddrPort) (net.Conn, error) {
		switch a.Port() {
		case 1:
			return nil, syscall.ECONNREFUSED
		case 2: // the loser of a race
			<-time.After(fallbackDelay + time.Second)
		}
		ours, _ := net.Pipe()
		return ours, nil
	}}
	c.pool.perAddress = 3
	return c
}

// gate lets all pass.
type gate struct {
	further bool // not the endpoint's first
	crowded int
}

func (g *gate) Enter() bool { return true }
func (g *gate) Leave()      {}
func (g *gate) First() bool { return !g.further }
func (g *gate) Crowded()    { g.crowded++ }

func (c *Client) dialAs(tenant int64, port uint16, ips ...string) (net.Conn, error) {
	var addrs []netip.Addr
	for _, ip := range ips {
		addrs = append(addrs, netip.MustParseAddr(ip))
	}
	return (&exchange{client: c, request: Request{Tenant: tenant}}).dialAny(context.Background(), addrs, port)
}

// A tenant has so many connections to one address, whatever the port. Who closes one
// makes room, and so does a dial that failed, or lost.
func TestConnectionsOfATenantToOneAddressAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b, six = "192.0.2.1", "192.0.2.2", "2001:db8::1"
		c := crowdClient()
		var open []net.Conn
		dial := func(tenant int64, port uint16, ips ...string) {
			t.Helper()
			nc, err := c.dialAs(tenant, port, ips...)
			if err != nil {
				t.Fatalf("dialling %v: %v", ips, err)
			}
			open = append(open, nc)
		}
		refused := func(want error, tenant int64, port uint16, ips ...string) {
			t.Helper()
			if _, err := c.dialAs(tenant, port, ips...); !errors.Is(err, want) {
				t.Errorf("dialling %v: %v, want %v", ips, err, want)
			}
		}
		for port := range uint16(3) {
			refused(syscall.ECONNREFUSED, 1, 1, a)
			dial(1, 80+port, a)
		}
		refused(errCrowded, 1, 99, a)
		dial(2, 99, a)
		dial(1, 99, b)
		dial(1, 99, a, b)                         // the name's other address
		refused(syscall.ECONNREFUSED, 1, 1, a, b) // what the receiver did counts
		open[0].Close()
		open[0].Close()
		dial(1, 99, a)
		refused(errCrowded, 1, 99, a)
		// The loser's connection comes late and is closed.
		dial(3, 2, six, a)
		<-time.After(time.Minute)
		synctest.Wait()
		for _, nc := range open {
			nc.Close()
		}
		if n := len(c.pool.crowds); n != 0 {
			t.Errorf("%d crowds are left when all connections are closed", n)
		}
	})
}

// Idle connections make room: the one unused for longest goes.
func TestAnIdleConnectionMakesRoomAtItsAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crowdClient()
		keep := func(endpoint int64) *conn {
			t.Helper()
			nc, err := c.dialAs(1, 80, "192.0.2.1")
			if err != nil {
				t.Fatal(err)
			}
			n := newConn(nc, nc, endpoint, "http://x")
			c.pool.put(n)
			return n
		}
		keep(1)
		keep(2)
		keep(3)
		keep(4)
		if c.pool.count != 3 || c.pool.get(1, "http://x") != nil {
			t.Errorf("%d connections are idle after four, want the newest three", c.pool.count)
		}
		held := c.pool.get(3, "http://x")
		if held == nil {
			t.Fatal("a kept connection is gone")
		}
		keep(5) // not at the expense of one in use
		if c.pool.get(2, "http://x") != nil || c.pool.count != 2 {
			t.Errorf("%d connections are idle beside one in use", c.pool.count)
		}
		held.Close()
		c.pool.close()
		if n := len(c.pool.crowds); n != 0 {
			t.Errorf("%d crowds are left", n)
		}
	})
}

// The last eighth of the places is for endpoints that have no connection. A further one
// takes the place of an idle one only if that was not used lately.
func TestTheLastConnectionsAreForEndpointsWithoutOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := crowdClient()
		c.pool.perAddress = 16
		dial := func(further bool) (net.Conn, error) {
			x := &exchange{client: c, request: Request{Tenant: 1, Gate: &gate{further: further}}}
			return x.dialAny(context.Background(), []netip.Addr{netip.MustParseAddr("192.0.2.1")}, 80)
		}
		var open []net.Conn
		fill := func(further bool, want int) {
			t.Helper()
			for n := 0; ; n++ {
				nc, err := dial(further)
				if err != nil {
					if !errors.Is(err, errCrowded) || n != want {
						t.Fatalf("%d connections (%v), want %d", n, err, want)
					}
					return
				}
				open = append(open, nc)
			}
		}
		fill(true, 14)
		fill(false, 2)
		for i := range 3 {
			c.pool.put(newConn(open[i], open[i], int64(i), "http://x"))
		}
		fill(true, 0) // they were used just now
		<-time.After(stillUsed)
		fill(true, 3)
		c.pool.put(newConn(open[3], open[3], 3, "http://x"))
		fill(false, 1) // whoever has none need not wait
		for _, nc := range open {
			nc.Close()
		}
		c.pool.close()
		if n := len(c.pool.crowds); n != 0 {
			t.Errorf("%d crowds are left", n)
		}
	})
}

// Without a gate an attempt over the number is not made: a fault of our own side, which uses no step.
func TestAnAttemptOverTheNumberIsALocalFault(t *testing.T) {
	asked, answer := make(chan struct{}, 9), make(chan struct{})
	receiver := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answer
	}))
	defer receiver.Close()
	c, err := New(Config{AllowHTTP: true, AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.pool.perAddress = 1
	signer := webhook.NewSigner([]byte("0123456789abcdef0123456789abcdef"))
	send := func(tenant, endpoint int64) posthorn.Attempt {
		return c.Send(t.Context(), Request{URL: receiver.URL, Signers: []*webhook.Signer{signer}, EventRef: "evt_1", EventType: "a.b",
			Tenant: tenant, Endpoint: endpoint, Attempt: 1, Body: []byte("{}")})
	}
	g := &gate{}
	first := make(chan posthorn.Attempt, 1)
	go func() { first <- send(1, 1) }()
	<-asked
	if a := send(1, 2); a.Class != posthorn.ClassLocal || a.Detail == "" {
		t.Errorf("an attempt over the number: %v %q", a.Class, a.Detail)
	}
	// A gate is told: then it has not taken place.
	c.Send(t.Context(), Request{URL: receiver.URL, Signers: []*webhook.Signer{signer}, EventRef: "evt_1", EventType: "a.b",
		Tenant: 1, Endpoint: 2, Attempt: 1, Body: []byte("{}"), Gate: g})
	if g.crowded != 1 {
		t.Errorf("the gate of an attempt over the number was told %d times", g.crowded)
	}
	close(answer)
	if a := send(2, 3); !a.Succeeded() {
		t.Errorf("another tenant's attempt: %v %q", a.Class, a.Detail)
	}
	if a := <-first; !a.Succeeded() {
		t.Errorf("the first attempt: %v %q", a.Class, a.Detail)
	}
	if a := send(1, 2); !a.Succeeded() { // in the place of the first one's, which is idle
		t.Errorf("an attempt after the first: %v %q", a.Class, a.Detail)
	}
	if n := len(asked); n != 2 {
		t.Errorf("%d requests after the first, want 2", n)
	}
}
