package send_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

func TestNames(t *testing.T) {
	r := listen(t, nil, answering(accepted))
	port := r.Addr().(*net.TCPAddr).Port
	_, portText, _ := net.SplitHostPort(r.Addr().String())
	for _, tt := range []struct {
		name   string
		addrs  []string
		rcode  int
		class  posthorn.Class
		detail string
	}{
		{name: "public name, allowed address", addrs: []string{"127.0.0.1"}},
		{name: "second address works", addrs: []string{"127.0.0.2", "127.0.0.1"}},
		{name: "IPv6 without a listener", addrs: []string{"::1", "127.0.0.1"}},
		{name: "NXDOMAIN", rcode: 3, class: posthorn.ClassDNS, detail: "no such host"},
		{name: "SERVFAIL", rcode: 2, class: posthorn.ClassDNS, detail: "the name servers did not give an answer"},
		{name: "REFUSED", rcode: 5, class: posthorn.ClassDNS, detail: "the name servers did not give an answer"},
		{name: "an answer too large for UDP, and none by TCP", addrs: []string{hell.TooLarge}, class: posthorn.ClassDNS, detail: "the name servers did not give an answer"},
		{name: "no address", addrs: []string{}, class: posthorn.ClassDNS, detail: "no such host"},
		{name: "no answer", class: posthorn.ClassDNS, detail: "the name servers did not answer in time"},
		{name: "private", addrs: []string{"10.0.0.1"}, class: posthorn.ClassRefused},
		{name: "metadata", addrs: []string{"169.254.169.254"}, class: posthorn.ClassRefused},
		{name: "mapped", addrs: []string{"::ffff:10.0.0.1"}, class: posthorn.ClassRefused},
		{name: "private behind an allowed one", addrs: []string{"127.0.0.1", "10.0.0.1"}, class: posthorn.ClassRefused},
		{name: "private IPv6 behind an allowed one", addrs: []string{"127.0.0.1", "fd00::1"}, class: posthorn.ClassRefused},
		{name: "unspecified", addrs: []string{"0.0.0.0"}, class: posthorn.ClassRefused},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.addrs == nil && tt.rcode == 0 {
				t.Parallel()
			}
			_, before := r.Counts()
			dns := hell.NewNameServer(t, func(string, int) ([]string, int) { return tt.addrs, tt.rcode })
			c := newClient(t, func(c *send.Config) { c.Resolver = dns.Resolver() })
			req := request("http://receiver.example.com:" + portText + "/")
			req.Timeout = 3 * time.Second
			a := mustSend(t, c, req)
			if a.Class != tt.class || a.Detail != tt.detail {
				t.Errorf("class %v, detail %q, want %v, %q", a.Class, a.Detail, tt.class, tt.detail)
			}
			if a.Timings.DNS == 0 {
				t.Error("no time was taken for the look-up")
			}
			want := 0
			if tt.class == posthorn.ClassOK {
				want = 1
				if host := r.Last().Host; host != "receiver.example.com:"+portText {
					t.Errorf("Host is %q", host)
				}
			}
			if _, n := r.Counts(); n-before != want && tt.addrs != nil {
				t.Errorf("the receiver at port %d got %d requests, want %d", port, n-before, want)
			}
		})
	}
}

// The name led to an allowed address when it was looked up first, and leads to a
// private one the next time. Each attempt looks up once and dials what it judged.
func TestRebinding(t *testing.T) {
	r := listen(t, nil, answering("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"))
	_, port, _ := net.SplitHostPort(r.Addr().String())
	dns := hell.NewNameServer(t, func(_ string, n int) ([]string, int) {
		if n <= 1 {
			return []string{"127.0.0.1"}, 0
		}
		return []string{"192.168.0.1"}, 0
	})
	c := newClient(t, func(c *send.Config) { c.Resolver = dns.Resolver() })
	req := request("http://receiver.example.com:" + port + "/")
	if a := mustSend(t, c, req); !a.Succeeded() {
		t.Fatalf("first: %s", a.Explain())
	}
	if n := dns.Asked("receiver.example.com"); n != 1 {
		t.Errorf("an attempt asked %d times for the name's addresses", n)
	}
	a := mustSend(t, c, req)
	if a.Class != posthorn.ClassRefused || a.Timings.Connect != 0 {
		t.Errorf("second: class %v, connect %v: something was dialled", a.Class, a.Timings.Connect)
	}
	if strings.Contains(a.Explain(), "192.168") {
		t.Errorf("the explanation holds the address: %s", a.Explain())
	}
}

// A resolver that cannot be reached is a fault of our side, not the endpoint's.
func TestResolverUnreachable(t *testing.T) {
	gone, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	refusing := &hell.NameServer{PacketConn: gone}
	noSocket := &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &net.OpError{Op: "dial", Net: "udp", Err: syscall.EMFILE}
	}}
	for name, resolver := range map[string]*net.Resolver{"refused": refusing.Resolver(), "no descriptors": noSocket} {
		c := newClient(t, func(c *send.Config) { c.Resolver = resolver })
		if a := mustSend(t, c, request("http://receiver.example.com/")); a.Class != posthorn.ClassLocal {
			t.Errorf("%s: class %v, %s", name, a.Class, a.Explain())
		}
	}
}

// What the operating system says about our side is local; what it says about
// the receiver's is not.
func TestDialErrors(t *testing.T) {
	for errno, class := range map[error]posthorn.Class{
		syscall.EMFILE: posthorn.ClassLocal, syscall.ENFILE: posthorn.ClassLocal, syscall.EADDRNOTAVAIL: posthorn.ClassLocal,
		syscall.ENOBUFS: posthorn.ClassLocal, syscall.EPERM: posthorn.ClassConnect,
		syscall.EHOSTUNREACH: posthorn.ClassConnect, syscall.ECONNREFUSED: posthorn.ClassConnect,
		syscall.ETIMEDOUT: posthorn.ClassTimeout, syscall.ECONNRESET: posthorn.ClassReset,
		context.DeadlineExceeded:           posthorn.ClassTimeout,
		&net.DNSError{IsNotFound: true}:    posthorn.ClassDNS,
		errors.New("something in between"): posthorn.ClassConnect,
	} {
		c := newClient(t, func(c *send.Config) {
			c.Dial = func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errno}
			}
		})
		a := mustSend(t, c, request("http://receiver.example/"))
		if a.Class != class {
			t.Errorf("%v: class %v, want %v", errno, a.Class, class)
		}
		if strings.Contains(a.Detail, errno.Error()) && class != posthorn.ClassConnect {
			t.Errorf("%v: detail %q", errno, a.Detail)
		}
	}
}
