package web

import (
	"net/http"
	"net/netip"
	"strings"
)

// ClientAddr is the address that a request came from. X-Forwarded-For is
// believed only as far as trusted proxies wrote it: it is read from its end,
// and the first address that is no trusted proxy's is the client's. The result
// is invalid when the connection has no IP address.
func ClientAddr(r *http.Request, trusted []netip.Prefix) netip.Addr {
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr := peer.Addr().Unmap().WithZone("")
	if !within(addr, trusted) {
		return addr
	}
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0; i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			return addr // not written by a proxy; the last good one it is
		}
		addr = hop.Unmap().WithZone("")
		if !within(addr, trusted) {
			return addr
		}
	}
	return addr
}

func within(a netip.Addr, prefixes []netip.Prefix) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}
