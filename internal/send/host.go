package send

import (
	"errors"
	"net/netip"
	"strings"
)

// readHost accepts an IPv4 address in its canonical form, an IPv6 address in every
// form of RFC 4291, 2.2, which all parsers read in the same way, or a name of letters,
// digits and hyphens. Other notations of addresses (0x7f000001, 2130706433,
// 0177.0.0.1, 127.1) end in a numeric label, which a name may not.
func (t *target) readHost(bracketed, underscores bool) error {
	if ip, err := netip.ParseAddr(t.host); err == nil {
		if ip.Zone() != "" || ip.Is4In6() || ip.Is6() != bracketed {
			return errors.New("the url's address is written in a way that is not taken; write an IPv4 address as four decimal numbers, also where IPv6 carries it, and an IPv6 address in brackets, without a zone")
		}
		t.ip, t.host = ip, ip.String()
		return nil
	}
	if bracketed {
		return errors.New("what stands in brackets is not an IPv6 address")
	}
	return checkForm(t.host, underscores)
}

// checkForm reports what keeps a name in lower case from being one of a host (RFC
// 1123, 2.1). Underscores are in none, but resolvers and certificates of closed
// networks know them, and so an operator may allow them.
func checkForm(host string, underscores bool) error {
	if len(host) > 253 {
		return errors.New("the url's host name is longer than 253 characters")
	}
	if strings.HasSuffix(host, ".") {
		return errors.New("the url's host name ends in a dot; leave the dot out")
	}
	last := ""
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return errors.New("the url's host is neither an address nor a host name; a name has labels of 1 to 63 letters, digits and hyphens, separated by dots")
		}
		last = label
	}
	if !underscores && strings.Contains(host, "_") {
		return errors.New("the url's host name has an underscore, which a host name may not have (RFC 1123); give the receiver a name without one, or ask the operator of this service, who may allow them by --allow-underscore-hosts")
	}
	if numeric(last) {
		return errors.New("the url's host ends in a number but is no IPv4 address of four decimal numbers; write it so")
	}
	return nil
}

// validLabel takes the underscore for a letter.
func validLabel(label string) bool {
	return len(label) > 0 && len(label) <= 63 && label[0] != '-' && label[len(label)-1] != '-' &&
		!strings.ContainsFunc(label, func(r rune) bool { return !('a' <= r && r <= 'z' || '0' <= r && r <= '9' || r == '-' || r == '_') })
}

// numeric reports whether some resolver may take a name that ends in the label
// for an IPv4 address.
func numeric(label string) bool {
	digits, hex := strings.CutPrefix(label, "0x")
	return strings.Trim(digits, "0123456789") == "" || hex && strings.Trim(digits, "0123456789abcdef") == ""
}

// privateSuffixes are names that the public DNS does not know: special-use (RFC
// 6761, 6762, 7686, 8375, 9476), reserved by ICANN because networks use them (corp,
// home, mail, internal), those of Kubernetes (svc, cluster.local), Docker, LXD and
// Consul, and those that networks give themselves. Any other last label may come into
// use in the public DNS: a name below it is taken, and judged at the dial.
var privateSuffixes = []string{
	"alt", "arpa", "cluster", "consul", "corp", "docker", "domain", "home", "internal", "intranet", "invalid",
	"lan", "local", "localdomain", "localhost", "localnet", "lxd", "mail", "onion", "private", "svc", "test", "workgroup",
}
