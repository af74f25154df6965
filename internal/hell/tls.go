package hell

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

// Handshake is a receiver whose TLS is good or bad.
type Handshake struct {
	Name   string
	Config *tls.Config
	Class  posthorn.Class
	Detail string
}

const noSubjectAltName = "the certificate names no host in a subjectAltName, and its Common Name does not count; have it issued again with one"

// Handshakes are receivers with certificates of ca, which is trusted, and of a
// stranger, which is not.
func Handshakes(t testing.TB, ca, stranger *Authority) []Handshake {
	return []Handshake{
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
		{"no subjectAltName, the address as Common Name", ca.Server(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, "127.0.0.1" }),
			posthorn.ClassTLS, noSubjectAltName},
		{"no subjectAltName, another Common Name", ca.Server(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }),
			posthorn.ClassTLS, noSubjectAltName},
		{"no subjectAltName, a host as Common Name", ca.Server(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, "receiver.example"
		}),
			posthorn.ClassTLS, noSubjectAltName},
		{"no subjectAltName, no Common Name", ca.Server(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses, c.Subject.CommonName = nil, nil, "" }),
			posthorn.ClassTLS, noSubjectAltName},
		{"no subjectAltName, self-signed", ca.Server(t, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses, c.Issuer = nil, nil, c.Subject }),
			posthorn.ClassTLS, noSubjectAltName},
		{"a subjectAltName of no host", ca.Server(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.EmailAddresses = nil, nil, []string{"hostmaster@receiver.example"}
		}), posthorn.ClassTLS, noSubjectAltName},
		{"a subjectAltName of a URI", ca.Server(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.URIs = nil, nil, []*url.URL{{Scheme: "spiffe", Host: "127.0.0.1"}}
		}), posthorn.ClassTLS, noSubjectAltName},
		{"no subjectAltName, expired", ca.Server(t, func(c *x509.Certificate) {
			c.DNSNames, c.IPAddresses, c.NotAfter = nil, nil, time.Now().Add(-time.Minute)
		}), posthorn.ClassTLS, "the certificate has expired"},
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
	}
}

func with(c *tls.Config, change func(*tls.Config)) *tls.Config {
	change(c)
	return c
}

// NoTLS are servers that do not speak TLS where it is expected.
var NoTLS = []struct {
	Name   string
	Serve  func(net.Conn)
	Class  posthorn.Class
	Detail string
}{
	{"Stall", Stall, posthorn.ClassTimeout, "during the TLS handshake"},
	{"close", func(c net.Conn) { c.Read(make([]byte, 1<<10)) }, posthorn.ClassReset, "during the TLS handshake"},
	{"reset", func(c net.Conn) { c.Read(make([]byte, 1<<10)); Reset(c) }, posthorn.ClassReset, "during the TLS handshake"},
	{"plain HTTP", func(c net.Conn) {
		c.Read(make([]byte, 4<<10))
		io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}, posthorn.ClassTLS, "the server does not speak TLS at this port"},
	{"huge handshake message", func(c net.Conn) {
		c.Read(make([]byte, 4<<10))
		// A message of 128 KiB, a byte in each record: the client must not wait for it.
		io.WriteString(c, strings.Repeat("\x16\x03\x03\x00\x01\x02", 4))
		Stall(c)
	}, posthorn.ClassTLS, "the handshake failed"},
}
