package app

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"

	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/tally"
)

// dialer is a connection from an address; nothing is read or written.
type dialer struct {
	net.Conn
	from netip.Addr
}

func (c dialer) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(netip.AddrPortFrom(c.from, 1)) }
func (c dialer) Close() error         { return nil }

func from(n int) dialer { return dialer{from: netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})} }

// crowd fills places: of each party so many connections, in a state.
type crowd struct {
	tenant, open int
	in           state
}

func (l *connections) enterAs(t testing.TB, raw net.Conn, tenant int, s state) *connection {
	t.Helper()
	c, _ := l.admit(raw)
	if c == nil {
		t.Fatal("there was no place")
	}
	if s == isWaiting {
		c.begin()
		_ = c.Enter(share.Tenant(int64(tenant)), false)
		c.Leave(share.Tenant(int64(tenant)), false)
		c.end()
		return c
	}
	c.begin()
	if err := c.Enter(share.Tenant(int64(tenant)), s == isReading); err != nil {
		t.Fatalf("tenant %d: %v", tenant, err)
	}
	return c
}

func TestWhoGivesItsPlace(t *testing.T) {
	for _, tt := range []struct {
		name   string
		places int
		crowds []crowd
		// callers are connections of one address that have sent nothing yet.
		callers int
		// gives is the tenant that gives its place, 0 for the address, -1 for nobody.
		gives int
		in    state
	}{
		{"the one that waits longest", 16, []crowd{{1, 16, isWaiting}}, 0, 1, isWaiting},
		{"a body that drips", 16, []crowd{{1, 12, isReading}, {2, 4, isWaiting}}, 0, 1, isReading},
		{"of who waits and who drips, who waits, if both hold too many", 16, []crowd{{1, 8, isReading}, {2, 8, isWaiting}}, 0, 2, isWaiting},
		{"a dripping one, and none that is answered", 16, []crowd{{1, 4, isAnswering}, {1, 6, isReading}, {2, 6, isAnswering}}, 0, 1, isReading},
		{"of two that drip the one with more", 32, []crowd{{1, 15, isReading}, {2, 17, isReading}}, 0, 2, isReading},
		{"what waits, of who holds more than little, before what is answered", 64, []crowd{{1, 24, isAnswering}, {2, 24, isAnswering}, {3, 12, isWaiting}, {4, 4, isWaiting}}, 0, 3, isWaiting},
		{"what is answered, so that what holds little stays", 64, []crowd{{1, 46, isAnswering}, {2, 17, isAnswering}, {3, 1, isWaiting}}, 0, 1, isAnswering},
		{"who has sent nothing", 16, []crowd{{1, 2, isReading}, {2, 2, isAnswering}}, 12, 0, isWaiting},
		{"nobody where all have as many as the newcomer would", 4, []crowd{{1, 1, isReading}, {2, 1, isAnswering}, {3, 1, isReading}, {4, 1, isAnswering}}, 0, -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newConnections(nil, tt.places)
			l.requests = share.NewPool(1<<20, 0) // requests are not what this is about
			var first [99][states]*connection
			for _, c := range tt.crowds {
				for i := range c.open {
					conn := l.enterAs(t, from(2), c.tenant, c.in)
					if i == 0 {
						first[c.tenant][c.in] = conn
					}
				}
			}
			for i := range tt.callers {
				c, _ := l.admit(from(1))
				if i == 0 {
					first[0][isWaiting] = c
				}
			}
			var want *connection
			if tt.gives >= 0 {
				want = first[tt.gives][tt.in]
			}
			c, evicted := l.admit(from(1))
			if evicted != want || (c == nil) != (want == nil) {
				t.Errorf("%v gave its place, want that of tenant %d", describe(evicted), tt.gives)
			}
			l.sound(t)
		})
	}
}

func describe(c *connection) string {
	if c == nil {
		return "nobody"
	}
	return fmt.Sprintf("one in state %d of %d", c.state, c.by.open)
}

// sound checks that the counts are those of the lists.
func (l *connections) sound(t testing.TB) {
	t.Helper()
	open := 0
	for who, by := range l.parties {
		n := 0
		for s := range by.in {
			for e := by.in[s].Front(); e != nil; e = e.Next() {
				if c := e.Value.(*connection); c.closed || c.by != by || c.state != state(s) || by.who != who {
					t.Fatalf("%+v is listed at %+v", c, by)
				}
				n++
			}
		}
		if n != by.open || n == 0 {
			t.Fatalf("%v has %d connections, of which %d are listed", who, by.open, n)
		}
		open += n
	}
	if open != l.open || open > l.max {
		t.Fatalf("%d are open, %d are counted, of %d", open, l.open, l.max)
	}
}

// Connections come, ask, drip, are answered and go at random, while one party takes
// all that it can get: the counts stay right, and who holds little always gets in.
func TestPlacesAreSharedAtRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	const places, steps = 64, 20_000
	l := newConnections(nil, places)
	type visit struct {
		who     share.Party
		reading bool
	}
	visits := map[*connection][]visit{}
	var all []*connection
	come := func(raw net.Conn) *connection {
		c, evicted := l.admit(raw)
		if evicted != nil && !evicted.closed {
			t.Fatal("one that gave its place is not closed")
		}
		if c != nil {
			all = append(all, c)
		}
		return c
	}
	let := 0
	for range steps {
		switch k := r.IntN(10); {
		case k < 4 || len(all) == 0:
			come(from(1 + r.IntN(3)))
		case k < 5:
			if held := l.parties[share.Address(from(9).from)]; held == nil {
				if c := come(from(9)); c == nil {
					t.Fatal("who holds nothing was kept out")
				}
				let++
			}
		default:
			i := r.IntN(len(all))
			c := all[i]
			switch {
			case c.closed || r.IntN(8) == 0: // its requests end, and so does it
				for _, v := range visits[c] {
					c.Leave(v.who, v.reading)
					c.end()
				}
				delete(visits, c)
				c.Close()
				all[i] = all[len(all)-1]
				all = all[:len(all)-1]
			case r.IntN(3) > 0: // HTTP/2: several at a time
				who := share.Tenant(1)
				if r.IntN(4) == 0 {
					who = share.Tenant(2 + r.Int64N(3))
				}
				reading := r.IntN(3) > 0
				c.begin()
				if c.Enter(who, reading) != nil {
					c.end()
				} else {
					visits[c] = append(visits[c], visit{who, reading})
				}
			case len(visits[c]) > 0:
				if v := &visits[c][0]; v.reading {
					c.Received()
					v.reading = false
				}
			}
		}
		l.sound(t)
		if held := l.requests.Held(share.Tenant(1)); held > places*3/4 {
			t.Fatalf("one tenant has %d requests under way", held)
		}
	}
	for c, list := range visits {
		for _, v := range list {
			c.Leave(v.who, v.reading)
			c.end()
		}
		if c.requests != 0 || c.reading != 0 {
			t.Fatalf("%d requests and %d bodies are left of a connection", c.requests, c.reading)
		}
	}
	if n, parties := l.requests.Taken(); n != 0 || parties != 0 || let == 0 {
		t.Errorf("%d requests of %d parties are left; %d newcomers were let in", n, parties, let)
	}
	tally.Count(t, "whoever drips bodies on all connections keeps nobody out", steps)
}
