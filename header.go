package posthorn

import (
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// Limits of the extra request headers of an endpoint.
const (
	MaxHeaders     = 20
	MaxHeaderName  = 128  // bytes
	MaxHeaderValue = 2048 // bytes
)

// Names are listed as [HeaderKey] has them.
var (
	reservedHeaders = []string{
		"host", "user-agent", "connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "http2-settings",
		"expect", "idempotency-key", "x-idempotency-key", "accept-encoding", "traceparent", "tracestate",
	}
	reservedPrefixes = []string{"webhook-", "svix-", "posthorn-", "content-", "proxy-"}
)

// HeaderKey is what two names of headers have in common if a receiver may not tell
// them apart: CGI and WSGI hand a header on as a variable, in upper case and with
// "_" for "-" (RFC 3875, 4.1.18), and some servers put "_" for every other sign too.
// It is in lower case, with "-" for all that is no ASCII letter or digit.
func HeaderKey(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case 'A' <= r && r <= 'Z':
			return r + 'a' - 'A'
		case 'a' <= r && r <= 'z', '0' <= r && r <= '9':
			return r
		}
		return '-'
	}, name)
}

// ReservedHeader reports whether an extra header may not have the name, because a
// receiver may take it (see [HeaderKey]) for one that belongs to the protocol (RFC
// 9110, 7.6.1), to us or to signatures: a "svix-id" makes Svix libraries read that
// instead of "webhook-id", an "idempotency-key" tells proxies that they may send the
// request again.
func ReservedHeader(name string) bool {
	name = HeaderKey(name)
	return slices.Contains(reservedHeaders, name) ||
		slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// ValidHeaderName reports whether s is a token (RFC 9110, 5.6.2).
func ValidHeaderName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r))
	})
}

// ValidHeaderValue reports whether s can stand in a header: no line break, NUL
// or other control character but the tab (RFC 9110, 5.5).
func ValidHeaderValue(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// SameOrigin reports whether two URLs lead to the same scheme, host and port
// (RFC 6454, 5). One that cannot be read has an origin of its own.
func SameOrigin(a, b string) bool {
	return a == b || Origin(a) != "" && Origin(a) == Origin(b)
}

// Origin returns a URL's origin as one text, "https://partner.example.com:443": in
// lower case, with its port, an address in its short form. It returns "" for a URL that
// cannot be read or has no host.
func Origin(of string) string {
	u, err := url.Parse(of)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	host := strings.ToLower(u.Hostname())
	if a, err := netip.ParseAddr(host); err == nil {
		host = a.String()
	}
	return strings.ToLower(u.Scheme) + "://" + net.JoinHostPort(host, port(u))
}

func port(u *url.URL) string {
	switch p := u.Port(); {
	case p != "":
		return p
	case strings.EqualFold(u.Scheme, "http"):
		return "80"
	default:
		return "443"
	}
}
