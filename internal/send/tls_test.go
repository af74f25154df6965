package send_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

func TestTLS(t *testing.T) {
	ca, stranger := newAuthority(t), newAuthority(t)
	for _, tt := range []struct {
		name   string
		config *tls.Config
		class  posthorn.Class
		detail string
	}{
		{"good", ca.Server(t, nil), posthorn.ClassOK, ""},
		{"TLS 1.2", with(ca.Server(t, nil), func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), posthorn.ClassOK, ""},
		{"TLS 1.1", with(ca.Server(t, nil), func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }),
			posthorn.ClassTLS, "the server offers no TLS version from 1.2 up"},
		{"expired", ca.Server(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }),
			posthorn.ClassTLS, "the certificate has expired"},
		{"not yet valid", ca.Server(t, func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }),
			posthorn.ClassTLS, "the certificate is not valid yet"},
		{"other name", ca.Server(t, func(c *x509.Certificate) { c.IPAddresses = nil }),
			posthorn.ClassTLS, "the certificate is for another host name"},
		{"other address", ca.Server(t, func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 2)} }),
			posthorn.ClassTLS, "the certificate is for another host name"},
		{"unknown authority", stranger.Server(t, func(c *x509.Certificate) { c.SerialNumber = big.NewInt(7) }),
			posthorn.ClassTLS, "the certificate is signed by an unknown authority; an intermediate certificate may be missing"},
		{"self-signed", ca.Server(t, func(c *x509.Certificate) { c.Issuer = c.Subject }),
			posthorn.ClassTLS, "the certificate is self-signed"},
		{"for clients", ca.Server(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }),
			posthorn.ClassTLS, "the certificate is not valid for this use"},
		{"wants a client certificate", with(ca.Server(t, nil), func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }),
			posthorn.ClassTLS, "the server asks for a client certificate"},
		{"wants a client certificate, TLS 1.2", with(ca.Server(t, nil), func(c *tls.Config) {
			c.ClientAuth, c.MaxVersion = tls.RequireAnyClientCert, tls.VersionTLS12
		}), posthorn.ClassTLS, "the server found no TLS parameters in common, or asks for a client certificate"},
		{"another protocol only", with(ca.Server(t, nil), func(c *tls.Config) { c.NextProtos = []string{"spdy/3"} }),
			posthorn.ClassProtocol, "the server does not speak HTTP/1.1"},
		{"no such name", with(ca.Server(t, nil), func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.ErrNoProgress }
		}), posthorn.ClassTLS, "the server broke off the handshake"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, tt.config, answering(accepted))
			c := newClient(t, func(c *send.Config) { c.CAs = ca.Pool })
			a := mustSend(t, c, request(r.URLS()))
			if a.Class != tt.class || a.Detail != tt.detail {
				t.Errorf("class %v, detail %q, want %v, %q", a.Class, a.Detail, tt.class, tt.detail)
			}
			want := 0
			if tt.class == posthorn.ClassOK {
				want = 1
			}
			if _, n := r.Counts(); n != want {
				t.Errorf("the receiver got %d requests, want %d", n, want)
			}
			if a.Timings.TLS == 0 {
				t.Error("no time was taken for TLS")
			}
		})
	}
}

func with(c *tls.Config, change func(*tls.Config)) *tls.Config {
	change(c)
	return c
}

func TestTLSWithServersThatDoNotSpeakIt(t *testing.T) {
	for _, tt := range []struct {
		name   string
		serve  func(net.Conn)
		class  posthorn.Class
		detail string
	}{
		{"stall", stall, posthorn.ClassTimeout, "during the TLS handshake"},
		{"close", func(c net.Conn) { c.Read(make([]byte, 1<<10)) }, posthorn.ClassReset, "during the TLS handshake"},
		{"reset", func(c net.Conn) { c.Read(make([]byte, 1<<10)); reset(c) }, posthorn.ClassReset, "during the TLS handshake"},
		{"plain HTTP", func(c net.Conn) {
			c.Read(make([]byte, 4<<10))
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
		}, posthorn.ClassTLS, "the server does not speak TLS at this port"},
		{"huge handshake message", func(c net.Conn) {
			c.Read(make([]byte, 4<<10))
			// A message of 128 KiB, a byte in each record: the client must not wait for it.
			io.WriteString(c, strings.Repeat("\x16\x03\x03\x00\x01\x02", 4))
			stall(c)
		}, posthorn.ClassTLS, "the handshake failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := listen(t, nil, func(_ *receiver, c net.Conn) { tt.serve(c) })
			req := request(strings.Replace(r.URL(), "http:", "https:", 1))
			req.Timeout = 500 * time.Millisecond
			a := mustSend(t, newClient(t, nil), req)
			if a.Class != tt.class || a.Detail != tt.detail {
				t.Errorf("class %v, detail %q, want %v, %q", a.Class, a.Detail, tt.class, tt.detail)
			}
		})
	}
}

// A receiver for HTTP/2 only is told as such, whether it refuses HTTP/1.1 in the
// handshake (TestTLS) or answers in frames.
func TestHTTP2OnlyReceivers(t *testing.T) {
	ca := newAuthority(t)
	for name, r := range map[string]*receiver{
		"TLS":   listen(t, ca.Server(t, nil), hell.HTTP2Only),
		"plain": listen(t, nil, hell.HTTP2Only),
	} {
		url := r.URL()
		if name == "TLS" {
			url = r.URLS()
		}
		a := mustSend(t, newClient(t, func(c *send.Config) { c.CAs = ca.Pool }), request(url))
		if conns, _ := r.Counts(); a.Class != posthorn.ClassProtocol || conns != 1 {
			t.Errorf("%s: class %v after %d connections, want protocol after 1: %s", name, a.Class, conns, a.Explain())
		}
	}
}

// What a tenant reads never holds an address or another system's words.
func TestDetailsAreOurOwnWords(t *testing.T) {
	ca := newAuthority(t)
	r := listen(t, ca.Server(t, nil), answering(accepted))
	c := newClient(t, nil) // without the authority
	a := mustSend(t, c, request(r.URLS()))
	for _, leak := range []string{"127.0.0.1", "x509", "test authority"} {
		if strings.Contains(a.Explain(), leak) {
			t.Errorf("%q holds %q", a.Explain(), leak)
		}
	}
}
