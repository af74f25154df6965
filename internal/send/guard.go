package send

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/posthorn/posthorn"
)

// Guard decides where webhooks may go. CheckURL judges what can be judged from
// the text when an endpoint is registered; the client asks the same Guard about
// each address that it is about to dial, which is what holds: a name may lead
// elsewhere by then. A Guard is safe for concurrent use.
type Guard struct {
	allowHTTP    bool
	underscores  bool // in host names
	allowPrivate []netip.Prefix
	own          func() []netip.AddrPort
	ownAllowed   []netip.AddrPort
	interfaces   func() ([]net.Addr, error)
}

// NewGuard returns the guard that a client with this configuration uses.
func NewGuard(c Config) Guard {
	g := Guard{allowHTTP: c.AllowHTTP, underscores: c.AllowUnderscoreHosts, own: c.Own, interfaces: net.InterfaceAddrs}
	for _, p := range c.AllowPrivate {
		g.allowPrivate = append(g.allowPrivate, p.Masked())
	}
	for _, a := range c.OwnAllowed {
		g.ownAllowed = append(g.ownAllowed, unmap(a))
	}
	return g
}

// CheckURL reports whether an endpoint may have the URL. The error is a
// sentence that names the fault and how to mend it, fit to be shown to whoever
// sent the URL. It does not resolve names. A nil error is no promise: the
// address is judged again at each attempt.
//
// Names of private networks (one label, .internal and the like) are refused
// unless Config.AllowPrivate opens a range that such a name could lead to.
func (g Guard) CheckURL(raw string) error {
	t, err := g.parse(raw)
	if err != nil {
		return err
	}
	if t.ip.IsValid() {
		return g.checkLiteral(t)
	}
	if err := g.checkName(t.host, t.port); err != nil {
		return err
	}
	// With a private range open a name may lead there, on any port.
	if !g.portAllowed(t.port) && len(g.allowPrivate) == 0 && !g.ownAllows(t.port) {
		return portError(t.port)
	}
	return nil
}

// target is a URL taken apart for sending.
type target struct {
	tls    bool
	host   string     // lower case, without brackets and port; an address in its short form
	ip     netip.Addr // valid when the host is an address
	port   uint16
	header string // for the Host header
	path   string // path and query for the request line
	// origin tells connections apart that may not stand in for one another.
	origin string
}

// address is the target for a proxy or a dial hook: host and port.
func (t *target) address() string {
	return net.JoinHostPort(t.host, strconv.Itoa(int(t.port)))
}

// parse takes a URL apart and refuses every form that another parser might read
// differently. It says nothing yet about where the host leads.
func (g Guard) parse(raw string) (target, error) {
	switch {
	case raw == "":
		return target{}, errors.New("the url is empty; give one such as https://partner.example.com/webhooks")
	case len(raw) > posthorn.MaxURLLength:
		return target{}, fmt.Errorf("the url is longer than %d characters", posthorn.MaxURLLength)
	case strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' || r == '\\' }):
		return target{}, errors.New("the url holds a space, a backslash, a control or a non-ASCII character; percent-encode it in the path, and give an international host name in its xn-- form")
	case strings.Contains(raw, "#"):
		return target{}, errors.New("the url has a fragment (#…), which is never sent; leave it out")
	}
	u, err := url.Parse(raw)
	if err != nil {
		return target{}, errors.New("the url cannot be parsed; give one such as https://partner.example.com/webhooks")
	}
	switch {
	case u.Scheme == "http" && !g.allowHTTP:
		return target{}, errors.New("the url must begin with https://; plain http is not allowed here")
	case u.Scheme != "https" && u.Scheme != "http":
		return target{}, errors.New("the url must be absolute and begin with https://")
	case u.Opaque != "" || u.Host == "":
		return target{}, errors.New("the url has no host; give one such as https://partner.example.com/webhooks")
	case u.User != nil:
		return target{}, errors.New("the url holds a user name or password; leave it out and check the signature instead")
	}
	return g.split(u)
}

func (g Guard) split(u *url.URL) (target, error) {
	t := target{tls: u.Scheme == "https", host: strings.ToLower(u.Hostname()), port: 80, path: u.RequestURI()}
	if t.tls {
		t.port = 443
	}
	standard := t.port
	if strings.HasSuffix(u.Host, ":") {
		return target{}, errors.New("the url's port is empty; give a number or leave out the colon")
	}
	if p := u.Port(); p != "" {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 || p[0] == '0' {
			return target{}, errors.New("the url's port is not a number from 1 to 65535")
		}
		t.port = uint16(n)
	}
	if err := t.readHost(strings.HasPrefix(u.Host, "["), g.underscores); err != nil {
		return target{}, err
	}
	t.header = t.host
	if t.ip.Is6() {
		t.header = "[" + t.host + "]"
	}
	if t.port != standard {
		t.header += ":" + strconv.Itoa(int(t.port))
	}
	t.origin = u.Scheme + "://" + t.header
	return t, nil
}

// checkName refuses names that can only lead into a private network, unless a
// range is open that they could lead to.
func (g Guard) checkName(host string, port uint16) error {
	last := host[strings.LastIndexByte(host, '.')+1:]
	switch {
	case last == "localhost" || host == "localhost.localdomain":
		if !g.opened(loopback4) && !g.opened(netip.IPv6Loopback()) && !g.ownAllows(port) {
			return errors.New("the url leads to localhost, where webhooks may not be sent; give a public host name")
		}
	case last == host || slices.Contains(privateSuffixes, last):
		if !slices.ContainsFunc(g.allowPrivate, func(p netip.Prefix) bool { return !p.Addr().IsLoopback() }) {
			return errors.New("the url's host name belongs to a private network, where webhooks may not be sent; give a public host name of at least two labels")
		}
	}
	return nil
}

var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

func (g Guard) ownAllows(port uint16) bool {
	return slices.ContainsFunc(g.ownAllowed, func(a netip.AddrPort) bool { return a.Port() == port })
}

func (g Guard) checkLiteral(t target) error {
	switch g.judge(netip.AddrPortFrom(t.ip, t.port)) {
	case allowed:
		return nil
	case deniedPort:
		return portError(t.port)
	case deniedOwn:
		return errors.New("the url leads to this service itself, where webhooks may not be sent")
	}
	return errors.New("the url's address is not a public one; webhooks may be sent to public addresses only")
}

func portError(port uint16) error {
	return fmt.Errorf("webhooks may not be sent to port %d; use 443, or one from 1024 up that no database or internal service is known by", port)
}
