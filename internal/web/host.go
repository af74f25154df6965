package web

import (
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Hosts are the names by which a service may be called. A browser sends the name that
// it was given, and a page of another site can have its own name lead to this machine
// (DNS rebinding): then it would read what only this machine may. The zero value has no
// names.
type Hosts struct{ names map[string]bool }

// NewHosts returns the hosts of the URLs.
func NewHosts(urls ...string) Hosts {
	h := Hosts{names: map[string]bool{}}
	for _, text := range urls {
		if u, err := url.Parse(text); err == nil && u.Hostname() != "" {
			h.names[plainName(u.Hostname())] = true
		}
	}
	return h
}

// Allow reports whether a request's Host is one of them, "localhost", or an address,
// which no other site can have for a name. So is none at all: browsers send one.
func (h Hosts) Allow(host string) bool {
	if host == "" {
		return true
	}
	name := host
	if n, _, err := net.SplitHostPort(host); err == nil {
		name = n
	}
	if a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")); err == nil {
		return a.IsValid()
	}
	name = plainName(name)
	return name == "localhost" || h.names[name]
}

// plainName is a name as it is compared: case and the root's dot say nothing.
func plainName(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Guard answers 421 (RFC 9110, section 15.5.20) to requests for other hosts, where asks
// says that the host of a request is looked at.
func (h Hosts) Guard(log *slog.Logger, now func() time.Time, asks func(*http.Request) bool, next http.Handler) http.Handler {
	refuse := Wrap(log, now, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, r, &Problem{
			Type: TypeURI("misdirected"), Title: "Another host", Status: http.StatusMisdirectedRequest,
			Detail: "The service is not called by the host of this request. Call it by localhost, its address, or a host of --public-url; behind a proxy that passes the Host on, --public-url names it.",
		})
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asks(r) && !h.Allow(r.Host) {
			refuse.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// Always has every request's host looked at.
func Always(*http.Request) bool { return true }

// OnLoopback reports whether a listener can be reached from its own machine only.
func OnLoopback(a net.Addr) bool {
	at, err := netip.ParseAddrPort(a.String())
	return err == nil && at.Addr().Unmap().IsLoopback()
}

// Guarded is a handler whose requests are guarded if its listener is on loopback.
func (h Hosts) Guarded(ln net.Listener, next http.Handler) http.Handler {
	if !OnLoopback(ln.Addr()) {
		return next
	}
	return h.Guard(slog.New(slog.DiscardHandler), time.Now, Always, next)
}
