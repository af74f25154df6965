package send_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

var testKey = func() []byte { key, _ := webhook.ParseSecret(testSecret); return key }()

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYo="

func newClient(t testing.TB, change func(*send.Config)) *send.Client {
	t.Helper()
	config := send.Config{AllowHTTP: true, AllowPrivate: loopback}
	if change != nil {
		change(&config)
	}
	c, err := send.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func request(url string) send.Request {
	return send.Request{
		URL: url, Keys: [][]byte{testKey}, EventRef: "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", EventType: "cases.updated",
		Delivery: posthorn.MakeID(time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC), 0, 1), Attempt: 1,
		Body: []byte(`{"id":"evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW","data":{}}`), Timeout: 2 * time.Second, Endpoint: 1,
	}
}

// receiver is a scripted server on a real socket. It counts what it saw on the
// wire.
type receiver struct {
	net.Listener
	mu       sync.Mutex
	conns    int
	requests []*seen
	open     map[net.Conn]bool
	wg       sync.WaitGroup
}

type seen struct {
	*http.Request
	raw  []byte // as it came, head and body
	body []byte
}

// listen serves each connection with serve, after TLS if config is given.
func listen(t testing.TB, config *tls.Config, serve func(r *receiver, c net.Conn)) *receiver {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{Listener: ln, open: make(map[net.Conn]bool)}
	r.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns++
			r.open[c] = true
			r.mu.Unlock()
			socket := c
			r.wg.Go(func() {
				defer func() {
					c.Close()
					r.mu.Lock()
					delete(r.open, socket)
					r.mu.Unlock()
				}()
				if config != nil {
					c = tls.Server(c, config)
				}
				serve(r, c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		r.hangUp()
		r.wg.Wait()
	})
	return r
}

// hangUp closes all connections.
func (r *receiver) hangUp() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.open {
		c.Close()
	}
}

func (r *receiver) url() string  { return "http://" + r.Addr().String() + "/hooks?a=b" }
func (r *receiver) urls() string { return "https://" + r.Addr().String() + "/hooks" }

func (r *receiver) openConns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.open)
}

func newReader(c net.Conn) *bufio.Reader { return bufio.NewReader(c) }

func prefixes(texts ...string) []netip.Prefix {
	var list []netip.Prefix
	for _, s := range texts {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}

func (r *receiver) counts() (conns, requests int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.conns, len(r.requests)
}

// read takes one request off the wire.
func (r *receiver) read(br *bufio.Reader) (*seen, error) {
	var raw recorder
	req, err := http.ReadRequest(bufio.NewReader(io.TeeReader(&oneByte{br}, &raw)))
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s := &seen{Request: req, raw: raw, body: body}
	r.mu.Lock()
	r.requests = append(r.requests, s)
	r.mu.Unlock()
	return s, nil
}

// oneByte keeps a bufio.Reader above it from reading into the next request.
type oneByte struct{ r io.Reader }

func (o *oneByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

type recorder []byte

func (r *recorder) Write(p []byte) (int, error) { *r = append(*r, p...); return len(p), nil }

// answering reads one request after the other and writes the same answer, until
// the connection ends.
func answering(answer string) func(*receiver, net.Conn) {
	return func(r *receiver, c net.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, err := r.read(br); err != nil {
				return
			}
			if _, err := io.WriteString(c, answer); err != nil {
				return
			}
		}
	}
}

// once reads one request, does something and closes the connection.
func once(do func(c net.Conn)) func(*receiver, net.Conn) {
	return func(r *receiver, c net.Conn) {
		if _, err := r.read(bufio.NewReader(c)); err == nil {
			do(c)
		}
	}
}

func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

// drip writes s byte by byte until the other side is gone.
func drip(c net.Conn, s string, pause time.Duration) {
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for i := 0; ; i = (i + 1) % len(s) {
		if _, err := c.Write([]byte{s[i]}); err != nil {
			return
		}
		<-tick.C
	}
}

// stall waits until the other side is gone.
func stall(c net.Conn) { io.Copy(io.Discard, c) }

// authority is a certificate authority made for a test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a := &authority{key: key, pool: x509.NewCertPool()}
	a.cert = sign(t, template, template, key, key)
	a.pool.AddCert(a.cert)
	return a
}

func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// server returns a TLS configuration with a certificate for 127.0.0.1 and
// receiver.example; change makes it a bad one.
func (a *authority) server(t testing.TB, change func(*x509.Certificate)) *tls.Config {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "receiver"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"receiver.example"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(template)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	parent, parentKey := a.cert, a.key
	if template.Issuer.CommonName == template.Subject.CommonName {
		parent, parentKey = template, key
	}
	cert := sign(t, template, parent, key, parentKey)
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

// mustSend makes an attempt that must end within its time limit, give or take
// what a loaded machine needs.
func mustSend(t testing.TB, c *send.Client, r send.Request) posthorn.Attempt {
	t.Helper()
	began := time.Now()
	a := c.Send(context.Background(), r)
	if took := time.Since(began); took > r.Timeout+3*time.Second {
		t.Errorf("the attempt took %v with a limit of %v", took, r.Timeout)
	}
	return a
}
