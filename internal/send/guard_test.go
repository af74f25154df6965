package send

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"code.dny.dev/ssrf"

	"github.com/posthorn/posthorn/internal/hell"
)

func guard(change func(*Config)) Guard {
	var c Config
	if change != nil {
		change(&c)
	}
	return NewGuard(c)
}

func TestCheckURL(t *testing.T) {
	for _, raw := range hell.GoodURLs {
		if err := guard(nil).CheckURL(raw); err != nil {
			t.Errorf("%s is refused: %v", raw, err)
		}
	}
	for _, raw := range hell.BadURLs {
		err := guard(nil).CheckURL(raw)
		if err == nil {
			t.Errorf("%q is accepted", raw)
		} else if !strings.HasPrefix(err.Error(), "the url") && !strings.HasPrefix(err.Error(), "webhooks may not") && !strings.HasPrefix(err.Error(), "what stands") {
			t.Errorf("%q: %q does not begin as a sentence about the url", raw, err)
		}
	}
}

func TestCheckURLWithSettings(t *testing.T) {
	private := func(cidrs ...string) func(*Config) {
		return func(c *Config) { c.AllowHTTP, c.AllowPrivate = true, prefixes(cidrs...) }
	}
	for _, tt := range []struct {
		change func(*Config)
		raw    string
		ok     bool
	}{
		{func(c *Config) { c.AllowHTTP = true }, "http://partner.example.com/", true},
		{func(c *Config) { c.AllowHTTP = true }, "http://127.0.0.1/", false},
		{func(c *Config) { c.AllowHTTP = true }, "http://partner/", false},
		{private("127.0.0.0/8"), "http://127.0.0.1:22/", true},
		{private("127.0.0.0/8"), "http://localhost:3000/hooks", true},
		{private("127.0.0.0/8"), "http://receiver:3000/", false},
		{private("127.0.0.0/8"), "http://10.0.0.1/", false},
		{private("127.0.0.0/8"), "http://[::1]/", false},
		{private("10.0.0.0/8"), "http://receiver:3000/", true},
		{private("10.0.0.0/8"), "https://hooks.svc.cluster.local:99/", true},
		{private("10.0.0.0/8"), "http://localhost/", false},
		{private("10.0.0.0/8"), "http://10.1.2.3:5432/", true},
		{private("10.0.0.0/8"), "http://192.168.0.1/", false},
		{private("0.0.0.0/0", "::/0"), "http://169.254.169.254/", false},
		{private("0.0.0.0/0"), "http://0.0.0.0/", false},
		{private("169.254.169.254/32"), "http://169.254.169.254/", true},
		{private("fd00::/8"), "http://[fd00:ec2::254]/", false},
		{private("fd00::/8"), "http://[fd00:ec2::253]/", true},
		{private("0.0.0.0/0"), "http://localhost/", true},
		{private("::1/128"), "http://localhost/", true},
		{func(c *Config) { c.AllowHTTP, c.OwnAllowed = true, addrs("127.0.0.1:9000") }, "http://localhost:9000/inbox", true},
		{func(c *Config) { c.AllowHTTP, c.OwnAllowed = true, addrs("127.0.0.1:9000") }, "http://localhost:9001/inbox", false},
		{func(c *Config) { c.AllowHTTP, c.OwnAllowed = true, addrs("127.0.0.1:9000") }, "http://127.0.0.1:9000/inbox", true},
		{func(c *Config) { c.AllowHTTP, c.OwnAllowed = true, addrs("127.0.0.1:9000") }, "http://127.0.0.1:9001/inbox", false},
	} {
		if err := guard(tt.change).CheckURL(tt.raw); (err == nil) != tt.ok {
			t.Errorf("%s: %v, want accepted %v", tt.raw, err, tt.ok)
		}
	}
}

// Underscores in host names are the operator's to allow, and who is refused learns that.
// They change nothing else.
func TestUnderscoresInHostNames(t *testing.T) {
	open := func(c *Config) { c.AllowUnderscoreHosts = true }
	for _, raw := range []string{
		"https://a_b.example.com/", "https://_hooks.example.com/x", "https://a_.example.com:8443/", "https://A__B.Example.com/", "https://a.b_c.example.com/",
	} {
		if err := guard(open).CheckURL(raw); err != nil {
			t.Errorf("%s is refused: %v", raw, err)
		}
		if err := guard(nil).CheckURL(raw); err == nil || !strings.HasPrefix(err.Error(), "the url's host name has an underscore") || !strings.Contains(err.Error(), "--allow-underscore-hosts") {
			t.Errorf("%s: %v", raw, err)
		}
	}
	for _, raw := range []string{
		"https://my_service/", "https://a_b.internal/", "https://a_b.svc/", "https://-a_b.example.com/", "https://a_b-.example.com/", "https://a_b..example.com/",
		"https://a_b.example.com./", "https://a_b.127/", "https://a_b.0x7f/", "https://a_b%2fc.example.com/", "https://[a_b]/", "https://" + strings.Repeat("_", 64) + ".example.com/",
	} {
		if err := guard(open).CheckURL(raw); err == nil {
			t.Errorf("%s is accepted", raw)
		}
		if err := guard(nil).CheckURL(raw); err == nil {
			t.Errorf("%s is accepted by default", raw)
		}
	}
	private := guard(func(c *Config) {
		c.AllowHTTP, c.AllowUnderscoreHosts, c.AllowPrivate = true, true, prefixes("10.0.0.0/8")
	})
	if err := private.CheckURL("http://my_service:3000/hooks"); err != nil {
		t.Errorf("a private name where those are open: %v", err)
	}
}

// However a public IPv6 address is written, it is the same destination.
func TestFormsOfAnAddressAreOneDestination(t *testing.T) {
	want, err := guard(nil).parse("https://[2606:4700:4700::1111]/")
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"2606:4700:4700:0:0:0:0:1111", "2606:4700:4700:0000:0000:0000:0000:1111", "2606:4700:4700:0:0:0::1111", "2606:4700:4700::0.0.17.17"} {
		got, err := guard(nil).parse("https://[" + strings.ToUpper(host) + "]/")
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v, want %+v", host, got, err, want)
		}
	}
}

func addrs(texts ...string) (list []netip.AddrPort) {
	for _, s := range texts {
		list = append(list, netip.MustParseAddrPort(s))
	}
	return list
}

func TestMetadataAddressesAreRefused(t *testing.T) {
	for _, ip := range []string{
		"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16",
	} {
		for _, wide := range [][]netip.Prefix{nil, prefixes("0.0.0.0/0", "::/0")} {
			g := guard(func(c *Config) { c.AllowPrivate = wide })
			if v := g.judge(netip.AddrPortFrom(netip.MustParseAddr(ip), 443)); v != deniedAddress {
				t.Errorf("%s with %v open: %v", ip, wide, v)
			}
		}
		g := guard(func(c *Config) {
			c.AllowPrivate = []netip.Prefix{netip.PrefixFrom(netip.MustParseAddr(ip), netip.MustParseAddr(ip).BitLen())}
		})
		if v := g.judge(netip.AddrPortFrom(netip.MustParseAddr(ip), 80)); v != allowed {
			t.Errorf("%s named exactly: %v", ip, v)
		}
	}
}

// Own listeners are refused whatever else is open, under each address that
// leads to them.
func TestOwnListeners(t *testing.T) {
	for _, tt := range []struct {
		own  string
		dial string
		want verdict
	}{
		{"127.0.0.1:8420", "127.0.0.1:8420", deniedOwn},
		{"127.0.0.1:8420", "127.0.0.1:8421", allowed},
		{"127.0.0.1:8420", "127.0.0.2:8420", allowed},
		{"0.0.0.0:8420", "127.0.0.9:8420", deniedOwn},
		{"0.0.0.0:8420", "10.1.1.1:8420", deniedOwn},
		{"0.0.0.0:8420", "10.1.1.2:8420", allowed},
		{"[::]:8420", "127.0.0.1:8420", deniedOwn},
		{"[::]:8420", "[::1]:8420", deniedOwn},
		{"[::]:8420", "[::ffff:127.0.0.1]:8420", deniedOwn},
		{"[::]:8420", "[fd00::5]:8420", deniedOwn},
		{"[::]:8420", "[fd00::6]:8420", allowed},
		{"[::]:8420", "10.1.1.1:8420", deniedOwn},
		{"[::ffff:127.0.0.1]:8420", "127.0.0.1:8420", deniedOwn},
		{"0.0.0.0:8420", "0.0.0.0:8420", deniedAddress},
	} {
		g := guard(func(c *Config) {
			c.AllowPrivate = prefixes("0.0.0.0/0", "::/0")
			c.Own = func() []netip.AddrPort { return addrs(tt.own) }
		})
		g.interfaces = func() ([]net.Addr, error) {
			return []net.Addr{
				&net.IPNet{IP: net.IPv4(10, 1, 1, 1), Mask: net.CIDRMask(24, 32)}, &net.IPNet{IP: net.ParseIP("fd00::5"), Mask: net.CIDRMask(64, 128)},
			}, nil
		}
		if v := g.judge(netip.MustParseAddrPort(tt.dial)); v != tt.want {
			t.Errorf("own %s, dialled %s: %v, want %v", tt.own, tt.dial, v, tt.want)
		}
		g.ownAllowed = addrs("127.0.0.1:8420")
		if v := g.judge(netip.MustParseAddrPort("127.0.0.1:8420")); v != allowed {
			t.Errorf("own %s: the exception is %v", tt.own, v)
		}
	}
}

func TestZonesAreRefused(t *testing.T) {
	g := guard(func(c *Config) { c.AllowPrivate = prefixes("::1/128", "fe80::1/128") })
	for _, a := range []string{"[::1%lo]:443", "[fe80::1%eth0]:443", "[2606:4700::1%x]:443"} {
		if v := g.judge(netip.MustParseAddrPort(a)); v == allowed {
			t.Errorf("%s is allowed", a)
		}
	}
	if v := g.judge(netip.AddrPort{}); v == allowed {
		t.Error("no address is allowed")
	}
}

// The guard refuses all that code.dny.dev/ssrf refuses, at the edges of each
// range of the registries.
func TestOracleAtTheEdges(t *testing.T) {
	for _, list := range [][]netip.Prefix{notPublic, exactOnly, neverOpen, ssrf.IPv4DeniedPrefixes, ssrf.IPv6DeniedPrefixes, {global6}} {
		for _, p := range list {
			first := p.Masked().Addr()
			last := lastOf(p)
			for _, ip := range []netip.Addr{first.Prev(), first, first.Next(), last.Prev(), last, last.Next()} {
				compareWithOracle(t, ip)
			}
		}
	}
}

func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(b)*8; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	ip, _ := netip.AddrFromSlice(b)
	return ip
}

func compareWithOracle(t *testing.T, ip netip.Addr) {
	t.Helper()
	if !ip.IsValid() {
		return
	}
	a := netip.AddrPortFrom(ip, 443)
	network := "tcp6"
	if ip.Is4() {
		network = "tcp4"
	}
	oracle := ssrf.New().Safe(network, a.String(), nil) == nil
	ours := guard(nil).judge(a) == allowed
	switch {
	case ours && !oracle && !ip.Is4In6():
		t.Errorf("%s: we allow it, the oracle does not", ip)
	case oracle && !ours && ip != netip.MustParseAddr("168.63.129.16"):
		t.Errorf("%s: the oracle allows it, we do not", ip)
	}
}

func FuzzAddress(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "8.8.8.8", "2606:4700::1111"} {
		f.Add(netip.MustParseAddr(s).AsSlice(), "")
	}
	f.Add([]byte{127, 0, 0, 1}, "lo")
	f.Fuzz(func(t *testing.T, b []byte, zone string) {
		ip, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		compareWithOracle(t, ip)
		if ip.Is4In6() {
			a, b := guard(nil).judge(netip.AddrPortFrom(ip, 443)), guard(nil).judge(netip.AddrPortFrom(ip.Unmap(), 443))
			if a != b {
				t.Errorf("%s is %v, unmapped %v", ip, a, b)
			}
		}
		if zoned := ip.WithZone(zone); zoned.Zone() != "" && guard(nil).judge(netip.AddrPortFrom(zoned, 443)) == allowed {
			t.Errorf("%s is allowed", zoned)
		}
	})
}

// What the guard accepts another parser must read in the same way, and what goes
// on the wire must be one request.
func FuzzCheckURL(f *testing.F) {
	for _, s := range []string{
		"https://partner.example.com/webhooks?a=b", "https://93.184.215.14/", "https://[2606::1]:8443/", "http://localhost/", "https://a@b/",
		"https://x:99999/", "https://0x7f.1/", "https://example.com:443#", "https://a.com/%2e%2e//x",
	} {
		f.Add(s)
	}
	open := guard(func(c *Config) { c.AllowHTTP, c.AllowPrivate = true, prefixes("10.0.0.0/8") })
	f.Fuzz(func(t *testing.T, raw string) {
		for _, g := range []Guard{guard(nil), open} {
			if g.CheckURL(raw) != nil {
				continue
			}
			u, err := url.Parse(raw)
			if err != nil || u.User != nil || u.Fragment != "" {
				t.Fatalf("%q was accepted: %v", raw, err)
			}
			target, err := g.parse(raw)
			if err != nil {
				t.Fatalf("%q: %v", raw, err)
			}
			// What the C library reads as an address must be one that we read too.
			if ip, ok := aton(target.host); ok && target.ip != ip {
				t.Errorf("%q: others connect to %s", raw, ip)
			}
			if strings.ContainsAny(target.path+target.header, " \r\n\t\x00") || !strings.HasPrefix(target.path, "/") {
				t.Errorf("%q: request line %q, host %q", raw, target.path, target.header)
			}
			if ip, err := netip.ParseAddr(target.host); err == nil && g.judge(netip.AddrPortFrom(ip, target.port)) != allowed {
				t.Errorf("%q: %s was accepted", raw, ip)
			}
		}
	})
}

// aton reads an IPv4 address as inet_aton does: one to four numbers, the last of
// which fills what is left, each decimal, octal or hexadecimal.
func aton(host string) (netip.Addr, bool) {
	parts := strings.Split(strings.TrimSuffix(host, "."), ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 0, 32)
		if err != nil || strings.Contains(part, "_") || strings.HasPrefix(part, "0b") || strings.HasPrefix(part, "0o") {
			return netip.Addr{}, false
		}
		if i < len(parts)-1 {
			if n > 255 {
				return netip.Addr{}, false
			}
			value |= n << (24 - 8*i)
		} else {
			if n >= 1<<(32-8*i) {
				return netip.Addr{}, false
			}
			value |= n
		}
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// An IPv6 address that carries an IPv4 one leads to that one, through a
// translator or a tunnel: opening the carrier opens nothing that is shut.
func TestCarriedAddressesAreJudged(t *testing.T) {
	for _, tt := range []struct {
		open, dial string
		want       verdict
	}{
		{"64:ff9b::/96", "[64:ff9b::808:808]:443", allowed},
		{"64:ff9b::/96", "[64:ff9b::808:808]:22", deniedPort},
		{"64:ff9b::/96", "[64:ff9b::a00:1]:443", deniedAddress},
		{"64:ff9b::/96", "[64:ff9b::7f00:1]:443", deniedAddress},
		{"64:ff9b::/96", "[64:ff9b::a9fe:a9fe]:80", deniedAddress},
		{"64:ff9b::/96", "[64:ff9b::a83f:8110]:443", deniedAddress},
		{"64:ff9b::/96", "[64:ff9b::]:443", deniedAddress},
		{"64:ff9b::/96", "[64:ff9b::808:404]:8420", deniedOwn},
		{"64:ff9b:1::/96", "[64:ff9b:1::808:808]:443", allowed},
		{"64:ff9b:1::/96", "[64:ff9b:1::a9fe:a9fe]:443", deniedAddress},
		{"64:ff9b:1::/48", "[64:ff9b:1:a9fe:a9:fe00::]:443", deniedAddress},
		{"64:ff9b:1::/48", "[64:ff9b:1::a00:1]:443", deniedAddress},
		{"64:ff9b:1::/48", "[64:ff9b:1::808:808]:443", deniedAddress}, // the layout is known of a /96 only
		{"2002::/16", "[2002:808:808::1]:443", allowed},
		{"2002::/16", "[2002:a9fe:a9fe::1]:443", deniedAddress},
		{"2002::/16", "[2002:a00:1::1]:443", deniedAddress},
		{"2001::/32", "[2001:0:808:808::f7f7:f7f7]:443", allowed},
		{"2001::/32", "[2001:0:808:808::f5ff:fffe]:443", deniedAddress},
		{"2001::/32", "[2001:0:a00:1::f7f7:f7f7]:443", deniedAddress},
		{"::/0", "[::ffff:0:a9fe:a9fe]:443", deniedAddress},
		{"::/0", "[::a9fe:a9fe]:443", deniedAddress},
		{"::/0", "[64:ff9b::a9fe:a9fe]:443", deniedAddress},
		{"::/0", "[::ffff:169.254.169.254]:443", deniedAddress},
		{"::/0", "[::ffff:10.0.0.1]:443", deniedAddress},
		{"::/0", "[fd00::1]:443", allowed},
		{"::1/128", "[::1]:443", allowed},
		{"64:ff9b::a9fe:a9fe/128", "[64:ff9b::a9fe:a9fe]:443", allowed},
	} {
		g := guard(func(c *Config) {
			c.AllowPrivate = prefixes(tt.open)
			c.Own = func() []netip.AddrPort { return addrs("8.8.4.4:8420") }
		})
		if v := g.judge(netip.MustParseAddrPort(tt.dial)); v != tt.want {
			t.Errorf("%s open, dialled %s: %v, want %v", tt.open, tt.dial, v, tt.want)
		}
	}
	both := guard(func(c *Config) { c.AllowPrivate = prefixes("64:ff9b::/96", "10.0.0.0/8") })
	if v := both.judge(netip.MustParseAddrPort("[64:ff9b::a00:1]:443")); v != allowed {
		t.Errorf("both the carrier and what it carries are open, and it is %v", v)
	}
}
