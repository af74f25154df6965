package send

import (
	"container/list"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/posthorn/posthorn"
)

// What stands between us and a receiver is somebody's fault: our own side's, and then
// the attempt counts for nothing and is made again soon, or that of the way to one
// destination, which its partner must learn and which must end some day. An obstacle
// that looks like ours and meets one destination only is that destination's.

const (
	// outageTime is how long it counts what came of a destination.
	outageTime = time.Minute
	// outageFrom is how many destinations make an outage.
	outageFrom = 3
	// maxTried bounds the destinations that are remembered.
	maxTried = 4096
)

// outage tells whether everything fails that goes a way out: a proxy that answers
// CONNECT with an error, a firewall that forbids. It is safe for concurrent use; its
// zero value has seen nothing.
type outage struct {
	mu     sync.Mutex
	tried  map[string]*list.Element // of *trial, by destination
	passed list.List                // the destinations that were last passed to, oldest first
	failed list.List                // those that failed last
	// untold is until when a destination may have been passed to that is not in tried.
	untold time.Time
}

// trial is what came last of a destination.
type trial struct {
	destination string
	at          time.Time
	in          *list.List
}

// pass notes that a destination was reached, or failed in another way.
func (o *outage) pass(destination string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.note(destination, &o.passed)
}

// fail notes that a destination met the obstacle, and reports whether this is an
// outage: within the last minute three or more destinations met it, and all that
// were tried.
func (o *outage) fail(destination string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := o.note(destination, &o.failed)
	return o.passed.Len() == 0 && o.failed.Len() >= outageFrom && !now.Before(o.untold)
}

// others reports whether another destination was passed to within the last minute.
func (o *outage) others(destination string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	now := time.Now()
	o.forget(&o.passed, now)
	last := o.passed.Back()
	if last != nil && last.Value.(*trial).destination == destination {
		last = last.Prev()
	}
	return last != nil || now.Before(o.untold)
}

// passEvery is how often one kept connection is noted as passed.
const passEvery = outageTime / 6

// reaches reports whether a connection that is used is to be noted as passed when an
// answer came. The caller owns the connection.
func (x *exchange) reaches(c *conn) bool {
	if x.began.Sub(c.passed) < passEvery {
		return false
	}
	c.passed = x.began
	return true
}

// note and forget are called with mu held.
func (o *outage) note(destination string, in *list.List) (now time.Time) {
	now = time.Now()
	o.forget(&o.passed, now)
	o.forget(&o.failed, now)
	e, known := o.tried[destination]
	switch {
	case known:
		e.Value.(*trial).in.Remove(e)
	case len(o.tried) >= maxTried:
		if in == &o.passed {
			o.untold = now.Add(outageTime)
		}
		return now
	case o.tried == nil:
		o.tried = make(map[string]*list.Element)
	}
	o.tried[destination] = in.PushBack(&trial{destination, now, in})
	return now
}

func (o *outage) forget(l *list.List, now time.Time) {
	for e := l.Front(); e != nil && now.Sub(e.Value.(*trial).at) >= outageTime; e = l.Front() {
		l.Remove(e)
		delete(o.tried, e.Value.(*trial).destination)
	}
}

// noWay is a failed dial to an address to which this machine has no way: none of
// its kind, as a rule.
type noWay struct {
	kind string // of the address: "IPv6 ", "IPv4 ", "" where it is not known
	err  error
}

func (w *noWay) Error() string { return w.err.Error() }
func (w *noWay) Unwrap() error { return w.err }

// wayless wraps the error of a dial in a noWay if it is one. That no local address is
// to be had means one of two things: none fits the kind, or all ports are in use.
func (c *Client) wayless(err error, a netip.AddrPort) error {
	no := errors.Is(err, syscall.EADDRNOTAVAIL) && a.IsValid() && !c.routes.to(a)
	for _, errno := range []syscall.Errno{syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EAFNOSUPPORT} {
		no = no || errors.Is(err, errno)
	}
	switch {
	case !no:
		return err
	case a.Addr().Is6():
		return &noWay{"IPv6 ", err}
	case a.Addr().Is4():
		return &noWay{"IPv4 ", err}
	}
	return &noWay{"", err}
}

// noWayFault says whose fault it is that there is no way: ours if there is none to
// anywhere. A machine that has lost the way out may still have one to its own
// neighbours, or to its containers: then nothing gets through.
func (c *Client) noWayFault(w *noWay, host string) error {
	all := c.outage.fail(host)
	if !c.routes.out() && (all || !c.routes.near()) {
		return &fault{posthorn.ClassLocal, "", w.err}
	}
	return &fault{posthorn.ClassConnect, "the sender's network has no way to the host's " + w.kind + "address", w.err}
}

// forbidden reports whether this machine's own firewall or routes refused.
func forbidden(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM)
}

// isObstacle reports whether something of this machine's stood in the way, which its
// operator may want to know though the attempt counts.
func isObstacle(err error) bool {
	_, no := errors.AsType[*noWay](err)
	_, answered := errors.AsType[*proxyError](err)
	return no || answered || forbidden(err)
}

// forbiddenFault says whose fault that is.
func (c *Client) forbiddenFault(err error, host string) error {
	if c.outage.fail(host) {
		return &fault{posthorn.ClassLocal, "", fmt.Errorf("own firewall: %w", err)}
	}
	return &fault{posthorn.ClassConnect, "the sender's network forbids the way to the host", err}
}

// routes is what this machine knows of the ways out of it.
type routes struct {
	out  func() bool                 // there is a way to the Internet, of any kind
	near func() bool                 // there is one to anywhere but this machine
	to   func(a netip.AddrPort) bool // there is one to an address
}

// systemRoutes asks the system. Nothing is sent: connecting a UDP socket looks a
// route and a local address up.
func systemRoutes() routes {
	to := func(a netip.AddrPort) bool {
		nc, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(a))
		if err != nil {
			return false
		}
		nc.Close()
		return true
	}
	return routes{to: to, near: anyInterface, out: func() bool { return to(root4) || to(root6) }}
}

// root4 and root6 are a public name server's (a.root-servers.net): the way to
// them is the one to the Internet.
var root4, root6 = netip.MustParseAddrPort("198.41.0.4:53"), netip.MustParseAddrPort("[2001:503:ba3e::2:30]:53")

// anyInterface reports whether an interface that is up has an address that others
// than its neighbours could answer to.
func anyInterface() bool {
	interfaces, err := net.Interfaces()
	if err != nil {
		return false
	}
	for _, i := range interfaces {
		if i.Flags&net.FlagUp == 0 || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ipnet, ok := a.(*net.IPNet); ok && ipnet.IP.IsGlobalUnicast() {
				return true
			}
		}
	}
	return false
}
