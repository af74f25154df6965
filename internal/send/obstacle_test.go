package send

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/webhook"
)

// An outage is what three destinations met, and all that were tried within a minute.
func TestAnOutageIsWhatAllMeet(t *testing.T) {
	type step struct {
		after  time.Duration
		host   string
		passed bool
		outage bool
	}
	for name, steps := range map[string][]step{
		"one alone, for ever":      {{0, "a", false, false}, {0, "a", false, false}, {time.Second, "a", false, false}, {time.Hour, "a", false, false}},
		"two":                      {{0, "a", false, false}, {0, "b", false, false}, {0, "a", false, false}},
		"three":                    {{0, "a", false, false}, {0, "b", false, false}, {0, "c", false, true}, {0, "a", false, true}},
		"three within two minutes": {{0, "a", false, false}, {40 * time.Second, "b", false, false}, {40 * time.Second, "c", false, false}},
		"one passes":               {{0, "d", true, false}, {0, "a", false, false}, {0, "b", false, false}, {0, "c", false, false}},
		"one passes meanwhile":     {{0, "a", false, false}, {0, "b", false, false}, {0, "c", false, true}, {0, "d", true, false}, {0, "a", false, false}},
		"one passed a minute ago":  {{0, "d", true, false}, {time.Minute, "a", false, false}, {0, "b", false, false}, {0, "c", false, true}},
		"all passed before":        {{0, "a", true, false}, {0, "b", true, false}, {0, "c", true, false}, {0, "a", false, false}, {0, "b", false, false}, {0, "c", false, true}},
		"one recovers":             {{0, "a", false, false}, {0, "b", false, false}, {0, "c", false, true}, {0, "a", true, false}, {0, "b", false, false}},
	} {
		synctest.Test(t, func(t *testing.T) {
			var o outage
			for i, s := range steps {
				if s.after > 0 {
					advance(s.after)
				}
				if s.passed {
					o.pass(s.host)
				} else if got := o.fail(s.host); got != s.outage {
					t.Errorf("%s, step %d: an outage: %v, want %v", name, i, got, s.outage)
				}
			}
		})
	}
}

func TestAnOutageRemembersABoundedNumber(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var o outage
		for i := range 3 * maxTried {
			o.fail(fmt.Sprint(i))
		}
		if len(o.tried) > maxTried || !o.fail("x") {
			t.Errorf("%d are remembered; an outage of all: %v", len(o.tried), o.fail("x"))
		}
		o.pass("one that is not remembered")
		if o.fail("0") {
			t.Error("an outage, though one passed")
		}
		advance(outageTime)
		if o.fail("a"); len(o.tried) != 1 {
			t.Errorf("%d are remembered after a minute", len(o.tried))
		}
	})
}

// obstructed sends to the literals, whose dials end with the error.
func obstructed(t *testing.T, ways routes, dialled error) func(host string) posthorn.Attempt {
	c, err := New(Config{AllowHTTP: true})
	if err != nil {
		t.Fatal(err)
	}
	c.routes = ways
	c.dialOne = func(_ context.Context, a netip.AddrPort) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", dialled)}
	}
	key, err := webhook.ParseSecret(webhook.NewSecret())
	if err != nil {
		t.Fatal(err)
	}
	return func(host string) posthorn.Attempt {
		return c.Send(t.Context(), Request{URL: "https://" + host + "/", Signers: []*webhook.Signer{webhook.NewSigner(key)}, EventRef: "e", EventType: "t"})
	}
}

// What lastingly stands in the way to one destination is not our own fault, for then
// it would be tried for ever and nobody would know. What stands in the way to all is.
func TestObstaclesOfOneDestination(t *testing.T) {
	const six, four = "[2606:4700::1111]", "93.184.215.14"
	is := func(yes bool) func() bool { return func() bool { return yes } }
	online := routes{out: is(true), near: is(true), to: func(a netip.AddrPort) bool { return a.Addr().Is4() }}
	lan := routes{out: is(false), near: is(true), to: func(a netip.AddrPort) bool { return false }}
	offline := routes{out: is(false), near: is(false), to: func(netip.AddrPort) bool { return false }}
	for _, tt := range []struct {
		name    string
		ways    routes
		host    string
		dialled syscall.Errno
		class   posthorn.Class
		detail  string
	}{
		{"IPv6 only, and no route", online, six, syscall.ENETUNREACH, posthorn.ClassConnect, "the sender's network has no way to the host's IPv6 address"},
		{"IPv6 only, and no address of our own", online, six, syscall.EADDRNOTAVAIL, posthorn.ClassConnect, "the sender's network has no way to the host's IPv6 address"},
		{"a kernel without IPv6", online, six, syscall.EAFNOSUPPORT, posthorn.ClassConnect, "the sender's network has no way to the host's IPv6 address"},
		{"the interface is down", online, six, syscall.ENETDOWN, posthorn.ClassConnect, "the sender's network has no way to the host's IPv6 address"},
		{"IPv4 only on a node of IPv6", online, four, syscall.ENETUNREACH, posthorn.ClassConnect, "the sender's network has no way to the host's IPv4 address"},
		{"a node that reaches neighbours only", lan, four, syscall.ENETUNREACH, posthorn.ClassConnect, "the sender's network has no way to the host's IPv4 address"},
		{"a route that is closed", online, four, syscall.EHOSTUNREACH, posthorn.ClassConnect, "host unreachable"},
		{"own firewall, to one host", online, four, syscall.EPERM, posthorn.ClassConnect, "the sender's network forbids the way to the host"},
		{"a prohibited route", online, four, syscall.EACCES, posthorn.ClassConnect, "the sender's network forbids the way to the host"},
		{"all ports in use", online, four, syscall.EADDRNOTAVAIL, posthorn.ClassLocal, ""},
		{"no descriptors", online, six, syscall.EMFILE, posthorn.ClassLocal, ""},
		{"no memory", online, six, syscall.ENOBUFS, posthorn.ClassLocal, ""},
		{"no network", offline, four, syscall.ENETUNREACH, posthorn.ClassLocal, ""},
		{"no network, IPv6", offline, six, syscall.ENETUNREACH, posthorn.ClassLocal, ""},
		{"no network, no address", offline, four, syscall.EADDRNOTAVAIL, posthorn.ClassLocal, ""},
	} {
		send := obstructed(t, tt.ways, tt.dialled)
		for i := range 5 {
			if a := send(tt.host); a.Class != tt.class || a.Detail != tt.detail {
				t.Errorf("%s, attempt %d: %v (%s), want %v (%s)", tt.name, i+1, a.Class, a.Detail, tt.class, tt.detail)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		ways    routes
		dialled syscall.Errno
	}{
		{"own firewall, to all", online, syscall.EPERM},
		{"neighbours only, and nobody is reached", lan, syscall.ENETUNREACH},
	} {
		send := obstructed(t, tt.ways, tt.dialled)
		send("93.184.215.1")
		send("93.184.215.2")
		if a := send("93.184.215.3"); a.Class != posthorn.ClassLocal {
			t.Errorf("%s: the third is %v", tt.name, a.Class)
		}
	}
}

// Of two kinds of address, what may be otherwise next time counts more than that
// there is no way.
func TestNoWayCountsLeast(t *testing.T) {
	no := &noWay{"IPv6 ", syscall.ENETUNREACH}
	for _, other := range []error{syscall.EMFILE, errCrowded, syscall.ECONNREFUSED, context.DeadlineExceeded, refused(deniedAddress, netip.AddrPort{})} {
		if worse(no, other) != other || worse(other, no) != other {
			t.Errorf("%v is hidden by an address without a way", other)
		}
	}
	if !errors.Is(worse(nil, no), syscall.ENETUNREACH) {
		t.Error("it is lost")
	}
}
