package send

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// verdict is what a guard thinks of an address.
type verdict uint8

const (
	allowed       verdict = iota
	deniedAddress         // not public
	deniedPort            // public, but not a port that webhooks go to
	deniedOwn             // one of this process's own listeners
)

var verdictNames = [...]string{"allowed", "address not public", "port not allowed", "own listener"}

func (v verdict) String() string { return verdictNames[v] }

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, s := range texts {
		list[i] = netip.MustParsePrefix(s)
	}
	return list
}

var (
	// global6 is the only part of IPv6 that is given out for public use. All
	// outside it is refused, also what is mapped, translated or to come.
	global6 = netip.MustParsePrefix("2000::/3")

	// notPublic are the ranges of the IANA special-purpose registries, and one
	// that is in none: 168.63.129.16, which answers inside Azure only.
	notPublic = prefixes(
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
		"192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24",
		"192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
		"224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32",
		"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
	)

	// exactOnly holds link-local addresses and the cloud metadata services,
	// which hand out credentials: a wider range that covers them does not open
	// them.
	exactOnly = prefixes(
		"169.254.0.0/16", "fe80::/10", "168.63.129.16/32", "100.100.100.200/32", "192.0.0.192/32",
		"fd00:ec2::254/128", "fd20:ce::254/128",
	)

	// neverOpen cannot be a destination by any setting.
	neverOpen = prefixes("0.0.0.0/32", "224.0.0.0/4", "255.255.255.255/32", "::/128", "ff00::/8")

	// internalPorts from 1024 up belong to databases, brokers, caches and
	// control planes: none is where a partner receives webhooks.
	internalPorts = []uint16{
		1433, 1521, 2049, 2181, 2375, 2376, 2379, 2380, 3306, 3389, 4369, 5432, 5672, 5900, 5984, 6379, 6443,
		7001, 9042, 9092, 9200, 9300, 10250, 11211, 15672, 27017, 27018, 27019,
	}
)

func contains(list []netip.Prefix, ip netip.Addr) bool {
	return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(ip) })
}

func unmap(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

// judge decides about an address that is about to be dialled.
func (g Guard) judge(a netip.AddrPort) verdict {
	// A zone makes Prefix.Contains false for everything, while the system dials
	// the address all the same. No public address has one.
	if !a.IsValid() || a.Addr().Zone() != "" {
		return deniedAddress
	}
	a = unmap(a)
	ip := a.Addr()
	switch {
	case contains(neverOpen, ip):
		return deniedAddress
	case slices.Contains(g.ownAllowed, a):
		return allowed
	case g.isOwn(a):
		return deniedOwn
	case g.opened(ip):
		return g.judgeCarried(a)
	case contains(notPublic, ip) || ip.Is6() && !global6.Contains(ip):
		return deniedAddress
	case !g.portAllowed(a.Port()):
		return deniedPort
	}
	return allowed
}

func (g Guard) portAllowed(port uint16) bool {
	switch {
	case port == 443:
		return true
	case port == 80:
		return g.allowHTTP
	}
	return port >= 1024 && !slices.Contains(internalPorts, port)
}

// opened reports whether the operator allowed the address on any port.
func (g Guard) opened(ip netip.Addr) bool {
	exact := contains(exactOnly, ip)
	return slices.ContainsFunc(g.allowPrivate, func(p netip.Prefix) bool {
		return p.Contains(ip) && (!exact || p.IsSingleIP())
	})
}

// isOwn reports whether a connection to the address would reach a listener of
// this process.
func (g Guard) isOwn(a netip.AddrPort) bool {
	if g.own == nil {
		return false
	}
	for _, own := range g.own() {
		own = unmap(own)
		if own.Port() != a.Port() {
			continue
		}
		if own.Addr().WithZone("") == a.Addr() || own.Addr().IsUnspecified() && g.isLocal(a.Addr()) {
			return true
		}
	}
	return false
}

// isLocal reports whether the address is one of this machine's. If the machine
// does not tell, it counts as local: a wrong refusal is seen and mended, a
// request that a tenant makes to our own API is not.
func (g Guard) isLocal(ip netip.Addr) bool {
	if ip.IsLoopback() {
		return true
	}
	addrs, err := g.interfaces()
	if err != nil {
		return true
	}
	for _, addr := range addrs {
		p, err := netip.ParsePrefix(addr.String())
		if err == nil && p.Addr().Unmap().WithZone("") == ip {
			return true
		}
	}
	return false
}

// checkAllowed refuses settings that read as if they opened what stays shut.
func checkAllowed(list []netip.Prefix) error {
	for _, p := range list {
		if !p.IsValid() {
			return errors.New("an allowed range is not a CIDR such as 10.0.0.0/8")
		}
		if p.Addr().Is4In6() {
			return fmt.Errorf("the allowed range %s is IPv4 within IPv6; write it as IPv4", p)
		}
		within := func(e netip.Prefix) bool { return e.Bits() <= p.Bits() && e.Overlaps(p) }
		if slices.ContainsFunc(neverOpen, within) {
			return fmt.Errorf("the allowed range %s holds no address that could be sent to; leave it out", p)
		}
		if slices.ContainsFunc(exactOnly, within) && !p.IsSingleIP() {
			return fmt.Errorf("the allowed range %s is link-local or metadata; name such addresses one by one, as /32 or /128", p)
		}
	}
	return nil
}
