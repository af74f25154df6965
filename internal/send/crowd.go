package send

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
)

// maxPerAddress bounds the connections of one tenant to one address, in use or idle,
// whatever names it goes by: a tenant with a thousand names for one receiver, or for
// somebody else's, opens no more.
const maxPerAddress = 1024

// crowd is a tenant's connections to one address.
type crowd struct {
	key            crowdKey
	open           int
	oldest, newest *conn // those of them that are idle
}

type crowdKey struct {
	tenant int64
	ip     netip.Addr
}

// stillUsed is how long an idle connection is not closed for another endpoint's second
// one: many endpoints with one connection each would close them for each other.
const stillUsed = time.Second

// enter makes room for one more connection, by closing the idle one that was unused
// for longest if it must; nil when all are in use. The last eighth is for the first
// connection of an endpoint: those that have many leave room for those that have none.
func (p *pool) enter(key crowdKey, first bool) *crowd {
	most := cmp.Or(p.perAddress, maxPerAddress)
	if !first {
		most -= most / 8
	}
	p.mu.Lock()
	c := p.crowds[key]
	if c == nil {
		c = &crowd{key: key}
		if p.crowds == nil {
			p.crowds = make(map[crowdKey]*crowd)
		}
		p.crowds[key] = c
	}
	if c.open < most {
		c.open++
		p.mu.Unlock()
		return c
	}
	idle := c.oldest
	if idle == nil || !first && time.Since(idle.since) < stillUsed {
		p.mu.Unlock()
		return nil
	}
	p.remove(idle)
	idle.place.gone.Store(true) // its place is taken over
	p.mu.Unlock()
	idle.Close()
	return c
}

// exit gives a connection's place back.
func (p *pool) exit(c *crowd) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.open--; c.open == 0 {
		delete(p.crowds, c.key)
	}
}

// counted gives its place back when it is closed, unless another has taken it over.
type counted struct {
	net.Conn
	crowd *crowd
	exit  func(*crowd)
	gone  atomic.Bool
}

func (c *counted) Close() error {
	err := c.Conn.Close()
	if !c.gone.Swap(true) {
		c.exit(c.crowd)
	}
	return err
}

// crowded is a fault of our own side: the receiver was not asked. Without a gate to
// notify, the delivery is due again soon, without a step of its schedule.
func crowded(ip netip.Addr) error {
	return &fault{posthorn.ClassLocal, "the tenant has as many connections to this address as it may", fmt.Errorf("%w: %s", errCrowded, ip)}
}

// addIdle and removeIdle are called with the pool's mu held.
func (c *crowd) addIdle(n *conn) {
	if n.olderHere, n.newerHere = c.newest, nil; c.newest != nil {
		c.newest.newerHere = n
	} else {
		c.oldest = n
	}
	c.newest = n
}

func (c *crowd) removeIdle(n *conn) {
	if n.olderHere != nil {
		n.olderHere.newerHere = n.newerHere
	} else {
		c.oldest = n.newerHere
	}
	if n.newerHere != nil {
		n.newerHere.olderHere = n.olderHere
	} else {
		c.newest = n.olderHere
	}
	n.olderHere, n.newerHere = nil, nil
}
