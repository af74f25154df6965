package send

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"github.com/posthorn/posthorn"
)

const (
	// maxDials bounds the addresses of a name that one attempt tries.
	maxDials = 6
	// fallbackDelay is how long the preferred kind of address, IPv6 or IPv4, has
	// for itself (RFC 8305 says 250 ms, Go's own dialer uses this).
	fallbackDelay = 300 * time.Millisecond
	// minDialTime is what an address gets though others are left to try.
	minDialTime = 2 * time.Second
)

// connect makes a new connection for the attempt. All errors are faults, or errShut.
func (x *exchange) connect(ctx context.Context, t *target) (*conn, error) {
	c, timings := x.client, &x.attempt.Timings
	generation := c.pool.generation() // before anything is verified
	raw, err := x.reach(ctx, t)
	if errors.Is(err, errShut) {
		return nil, err
	}
	if err != nil {
		return nil, c.connectFault(err, t.host)
	}
	c.outage.pass(t.host)
	nc := raw
	if t.tls {
		began := time.Now()
		secured := tls.Client(raw, c.tlsFor(t.host))
		err := secured.HandshakeContext(ctx)
		timings.TLS = time.Since(began)
		if err != nil {
			raw.Close()
			return nil, tlsFault(err)
		}
		nc = secured
	}
	made := newConn(nc, raw, x.request.Endpoint, t.origin)
	made.passed, made.generation = x.began, generation
	return made, nil
}

func (c *Client) tlsFor(host string) *tls.Config {
	config := c.tls.Load().Clone()
	config.ServerName = host
	return config
}

// reach returns a connection to the target: by the proxy, by the hook, or to an
// address that was judged.
func (x *exchange) reach(ctx context.Context, t *target) (net.Conn, error) {
	c, timings := x.client, &x.attempt.Timings
	if t.ip.IsValid() {
		if v := c.guard.judge(netip.AddrPortFrom(t.ip, t.port)); v != allowed {
			return nil, refused(v, netip.AddrPortFrom(t.ip, t.port))
		}
	}
	began := time.Now()
	if c.proxy != nil || c.dial != nil || t.ip.IsValid() { // else once the name is known
		if err := x.mayDial(); err != nil {
			return nil, err
		}
	}
	if c.proxy != nil {
		nc, err := c.tunnel(ctx, t)
		timings.Connect = time.Since(began)
		return nc, err
	}
	if c.dial != nil {
		nc, err := c.dial(ctx, "tcp", t.address())
		timings.Connect = time.Since(began)
		if err != nil {
			return nil, c.wayless(err, netip.AddrPortFrom(t.ip, t.port))
		}
		return nc, nil
	}
	addrs := []netip.Addr{t.ip}
	if !t.ip.IsValid() {
		var err error
		addrs, err = c.resolve(ctx, t.host, t.port)
		timings.DNS = time.Since(began)
		if err != nil {
			return nil, err
		}
		if err := x.mayDial(); err != nil {
			return nil, err
		}
		began = time.Now()
	}
	nc, err := x.dialAny(ctx, addrs, t.port)
	timings.Connect = time.Since(began)
	return nc, err
}

// resolve returns the addresses of a name, all of them judged. One that is
// refused refuses the name: nobody publishes a private address beside a public
// one in good faith, and dialling only the good ones would let an attacker try
// until the order is right.
func (c *Client) resolve(ctx context.Context, host string, port uint16) ([]netip.Addr, error) {
	if !c.search {
		host += "."
	}
	addrs, err := c.resolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		if dns, ok := errors.AsType[*net.DNSError](err); ok {
			return nil, c.dnsFault(dns, strings.TrimSuffix(host, "."))
		}
		return nil, &fault{posthorn.ClassDNS, "", err}
	}
	if len(addrs) == 0 {
		return nil, &fault{posthorn.ClassDNS, "no such host", fmt.Errorf("no address for %s", host)}
	}
	for i, ip := range addrs {
		if v := c.guard.judge(netip.AddrPortFrom(ip, port)); v != allowed {
			return nil, refused(v, netip.AddrPortFrom(ip, port))
		}
		addrs[i] = ip.Unmap()
	}
	return addrs[:min(len(addrs), maxDials)], nil
}

func refused(v verdict, a netip.AddrPort) error {
	detail := ""
	if v == deniedPort {
		detail = "the port is not one that webhooks may be sent to"
	}
	return &fault{posthorn.ClassRefused, detail, fmt.Errorf("%s: %s", a, v)}
}

// dialAny dials the addresses, those of the first one's kind first; the other
// kind joins in when those failed or take long. The first connection wins.
func (x *exchange) dialAny(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var primary, fallback []netip.Addr
	for _, ip := range addrs {
		if ip.Is4() == addrs[0].Is4() {
			primary = append(primary, ip)
		} else {
			fallback = append(fallback, ip)
		}
	}
	if len(fallback) == 0 {
		return x.dialEach(ctx, primary, port)
	}
	return x.dialRace(ctx, primary, fallback, port)
}

func (x *exchange) dialRace(ctx context.Context, primary, fallback []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		nc  net.Conn
		err error
	}
	results := make(chan outcome, 2)
	start := func(addrs []netip.Addr) {
		go func() {
			nc, err := x.dialEach(ctx, addrs, port)
			results <- outcome{nc, err}
		}()
	}
	start(primary)
	running, waiting := 1, true
	timer := time.NewTimer(fallbackDelay)
	defer timer.Stop()
	var failed error
	for {
		select {
		case <-timer.C:
		case r := <-results:
			running--
			if r.err == nil {
				cancel()
				if running > 0 { // the loser's connection, if it comes after all
					go func() {
						if r := <-results; r.nc != nil {
							r.nc.Close()
						}
					}()
				}
				return r.nc, nil
			}
			failed = worse(failed, r.err)
		}
		if waiting {
			waiting = false
			start(fallback)
			running++
		} else if running == 0 {
			return nil, failed
		}
	}
}

// worse picks the error that says more: what the receiver's side did rather
// than what ours could not do, such as IPv6 without a route; and of ours, what may
// be otherwise at the next attempt.
func worse(a, b error) error {
	if a == nil || weight(b) > weight(a) {
		return b
	}
	return a
}

func weight(err error) int {
	_, no := errors.AsType[*noWay](err)
	switch {
	case no || forbidden(err):
		return 0
	case isLocal(err):
		return 1
	}
	return 2
}

// dialEach dials one address after the other, each with its share of the time.
func (x *exchange) dialEach(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	var failed error
	for i, ip := range addrs {
		nc, err := x.dialShare(ctx, netip.AddrPortFrom(ip, port), len(addrs)-i)
		if err == nil {
			return nc, nil
		}
		failed = worse(failed, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, failed
}

// dialShare dials one address and leaves time for the others that are left.
func (x *exchange) dialShare(ctx context.Context, a netip.AddrPort, left int) (net.Conn, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		all := time.Until(deadline)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, max(all/time.Duration(left), min(all, minDialTime)))
		defer cancel()
	}
	return x.dialCounted(ctx, a)
}

// dialCounted dials an address unless too many of the tenant's connections lead there.
func (x *exchange) dialCounted(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	pool := &x.client.pool
	first := x.request.Gate == nil || x.request.Gate.First()
	crowd := pool.enter(crowdKey{x.request.Tenant, a.Addr()}, first)
	if crowd == nil {
		return nil, crowded(a.Addr())
	}
	nc, err := x.client.dialOne(ctx, a)
	if err != nil {
		pool.exit(crowd)
		return nil, x.client.wayless(err, a)
	}
	return &counted{Conn: nc, crowd: crowd, exit: pool.exit}, nil
}

// dialGuarded opens a socket to an address that was judged, and has it judged
// again by control.
func (c *Client) dialGuarded(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	dialer := net.Dialer{ControlContext: c.control}
	return dialer.DialContext(ctx, "tcp", a.String())
}

// control is the last word before a socket connects: it sees the address that
// the system was given, whatever way it came.
func (c *Client) control(_ context.Context, network, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil || network != "tcp4" && network != "tcp6" {
		return &fault{posthorn.ClassRefused, "", fmt.Errorf("%s address %q", network, address)}
	}
	if v := c.guard.judge(a); v != allowed {
		return refused(v, a)
	}
	return nil
}
