package send

import "net/netip"

// The ranges whose IPv6 addresses carry IPv4 ones, which a translator or a tunnel
// connects to: NAT64 (RFC 6052, RFC 8215), translated and compatible addresses,
// 6to4, Teredo. None is open unless the operator opens it.
var (
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	nat64Local = netip.MustParsePrefix("64:ff9b:1::/48")
	translated = netip.MustParsePrefix("::ffff:0:0:0/96")
	compatible = netip.MustParsePrefix("::/96")
	sixToFour  = netip.MustParsePrefix("2002::/16")
	teredo     = netip.MustParsePrefix("2001::/32")
)

// carried returns the IPv4 addresses within an IPv6 address.
func carried(ip netip.Addr) []netip.Addr {
	if !ip.Is6() || ip.IsLoopback() {
		return nil
	}
	b := ip.As16()
	switch {
	case nat64.Contains(ip), nat64Local.Contains(ip), translated.Contains(ip), compatible.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[12:]))}
	case sixToFour.Contains(ip):
		return []netip.Addr{netip.AddrFrom4([4]byte(b[2:6]))}
	case teredo.Contains(ip): // its server, and the client's address with all bits turned
		return []netip.Addr{netip.AddrFrom4([4]byte(b[4:8])), netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]})}
	}
	return nil
}

// judgeCarried decides about an address of an opened range. Opening the carrier
// opens nothing that is shut to what it carries; only an address that was named
// exactly is meant as it is.
func (g Guard) judgeCarried(a netip.AddrPort) verdict {
	ip := a.Addr()
	longest := 0
	for _, p := range g.allowPrivate {
		if p.Contains(ip) {
			longest = max(longest, p.Bits())
		}
	}
	if longest == ip.BitLen() {
		return allowed
	}
	if nat64Local.Contains(ip) && longest < 96 {
		return deniedAddress // where the IPv4 address stands depends on the prefix's length
	}
	for _, v4 := range carried(ip) {
		if v := g.judge(netip.AddrPortFrom(v4, a.Port())); v != allowed {
			return v
		}
	}
	return allowed
}
