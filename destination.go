package posthorn

import (
	"net/netip"
	"net/url"
	"strings"
)

// MaxSameURL is how many endpoints of a tenant may have the same url: each gets what
// matches, so that one request would become as many at its receiver.
const MaxSameURL = 10

// HostOf is the host that a url sends to, whatever its port: in lower case, without
// the dot that ends an absolute name, an IP address in its usual form. It is empty
// for what is no url.
func HostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return hostOf(u)
}

func hostOf(u *url.URL) string {
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.Unmap().String()
	}
	return host
}

// ReceiverOf is a url without what does not tell one receiver from another: the query,
// the case of the scheme and the host, a default port. Two urls with the same one are
// the same url. What is no url is its own.
func ReceiverOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return raw
	}
	port := u.Port()
	if u.Scheme == "https" && port == "443" || u.Scheme == "http" && port == "80" {
		port = ""
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	return u.Scheme + "://" + hostOf(u) + ":" + port + path
}

// TooManyAt reports whether a tenant that has endpoints with the other urls may have
// none more with the url.
func TooManyAt(wanted string, others []string) bool {
	receiver, n := ReceiverOf(wanted), 0
	for _, o := range others {
		if ReceiverOf(o) == receiver {
			n++
		}
	}
	return n >= MaxSameURL
}
