package postgres

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// front ends TLS before a server that is reached by a socket, as PostgreSQL does it,
// and notes the certificates that clients show.
type front struct {
	address string
	mu      sync.Mutex
	config  *tls.Config
	shown   []*x509.Certificate
}

func newFront(t *testing.T, socket string) *front {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	f := &front{address: ln.Addr().String()}
	go func() {
		for c, err := ln.Accept(); err == nil; c, err = ln.Accept() {
			go f.serve(c, socket)
		}
	}()
	return f
}

func (f *front) serve(c net.Conn, socket string) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // SSLRequest
		return
	}
	io.WriteString(c, "S")
	f.mu.Lock()
	config := f.config
	f.mu.Unlock()
	secured := tls.Server(c, config)
	if secured.Handshake() != nil {
		return
	}
	f.mu.Lock()
	if certs := secured.ConnectionState().PeerCertificates; len(certs) > 0 {
		f.shown = append(f.shown, certs[0])
	}
	f.mu.Unlock()
	server, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { io.Copy(server, secured); server.Close() }()
	io.Copy(secured, bufio.NewReader(server))
}

func (f *front) serves(config *tls.Config) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.config = config.Clone()
	f.config.ClientAuth = tls.RequestClientCert
}

// last is the certificate that a client showed last.
func (f *front) last() *x509.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.shown) == 0 {
		return nil
	}
	return f.shown[len(f.shown)-1]
}

// certificateOf returns a pair as the files hold it.
func certificateOf(t *testing.T, c *tls.Config) (leaf *x509.Certificate, cert, key []byte) {
	t.Helper()
	pair := c.Certificates[0]
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
}

// A node connects to its database with what the files of the address hold now, in
// whatever way it connects, and with what they held before while they are not good.
func TestFilesOfTheAddressAreReadAgain(t *testing.T) {
	database := pgtest.Name(pgtest.Database(t, "template1"))
	dir := pgtest.Socket(t)
	if dir == "" {
		t.Skip("POSTHORN_TEST_POSTGRES names a server without a socket in reach; this test puts TLS before it")
	}
	f := newFront(t, filepath.Join(dir, ".s.PGSQL.5432"))
	files := t.TempDir()
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(files, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	first, second := hell.NewAuthority(t), hell.NewAuthority(t)
	oldLeaf, oldCert, oldKey := certificateOf(t, first.Server(t, nil))
	newLeaf, newCert, newKey := certificateOf(t, second.Server(t, nil))
	write("ca", first.PEM())
	write("cert", oldCert)
	write("key", oldKey)
	f.serves(first.Server(t, nil))
	address := "postgres://postgres@" + f.address + "/" + database + "?" + url.Values{
		"sslmode": {"verify-full"}, "sslrootcert": {filepath.Join(files, "ca")},
		"sslcert": {filepath.Join(files, "cert")}, "sslkey": {filepath.Join(files, "key")},
	}.Encode()
	if _, _, err := Migrate(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Options{URL: address, Role: Serve})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	// Each way to the database makes a new connection.
	ways := map[string]func() error{
		"a pool": func() error {
			s.other.Reset()
			_, err := s.other.Exec(t.Context(), `SELECT 1`)
			return err
		},
		"one of its own": func() error { return s.o.checkFit(t.Context(), false) },
		"a link": func() error {
			l := link{o: &s.o, purpose: "test"}
			defer l.close()
			_, err := l.conn(t.Context())
			return err
		},
	}
	connects := func(when string, want *x509.Certificate, works bool) {
		t.Helper()
		for name, connect := range ways {
			if err := connect(); (err == nil) != works {
				t.Errorf("%s, %s: %v", when, name, err)
			}
			if works && !f.last().Equal(want) {
				t.Errorf("%s, %s: it shows another certificate", when, name)
			}
		}
	}
	connects("at first", oldLeaf, true)

	for what, tt := range map[string]struct {
		spoil func()
		says  string
	}{
		"the certificate alone":  {func() { write("cert", newCert) }, "private key does not match"},
		"no key":                 {func() { os.Remove(filepath.Join(files, "key")) }, "no such file"},
		"authorities cut off":    {func() { write("ca", second.PEM()[:100]) }, "unable to add CA"},
		"authorities are a text": {func() { write("ca", []byte("text")) }, "unable to add CA"},
	} {
		tt.spoil()
		err := s.Reread()
		if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "postgres://") {
			t.Errorf("%s: %v", what, err)
		}
		connects(what, oldLeaf, true)
		write("ca", first.PEM())
		write("cert", oldCert)
		write("key", oldKey)
		if err := s.Reread(); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}

	write("ca", second.PEM())
	write("cert", newCert)
	write("key", newKey)
	if err := s.Reread(); err != nil {
		t.Fatal(err)
	}
	connects("renewed here, not there", nil, false)
	f.serves(second.Server(t, nil))
	connects("renewed on both sides", newLeaf, true)
}

// Files that went away leave nothing out: pgx takes them for ones that nobody wanted.
func TestFilesThatWentAwayWeakenNothing(t *testing.T) {
	home := t.TempDir()
	path := func(name string) string { return filepath.Join(home, name) }
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(path(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	service := "[hooks]\nhost=127.0.0.1\nport=5433\ndbname=hooks\nuser=posthorn\n"
	write("pass", "127.0.0.1:5433:hooks:posthorn:s3cret\n")
	write("service", service)
	address := "postgres:///?service=hooks&sslmode=disable&servicefile=" + url.QueryEscape(path("service")) + "&passfile=" + url.QueryEscape(path("pass"))
	r := &readings{}
	c, err := r.config(address)
	if err != nil || c.Password != "s3cret" || c.Port != 5433 {
		t.Fatalf("%v", err)
	}
	for what, spoil := range map[string]func(){
		"no file of passwords":      func() { os.Remove(path("pass")) },
		"a password for another":    func() { write("pass", "127.0.0.1:5433:hooks:somebody:else\n") },
		"no file of services":       func() { os.Remove(path("service")) },
		"the service is elsewhere":  func() { write("service", strings.Replace(service, "5433", "5434", 1)) },
		"another database":          func() { write("service", strings.Replace(service, "dbname=hooks", "dbname=other", 1)) },
		"the service is not listed": func() { write("service", strings.Replace(service, "[hooks]", "[other]", 1)) },
	} {
		spoil()
		if err := r.reread(address); err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", what, err)
		}
		if c, err := r.config(address); err != nil || c.Password != "s3cret" || c.Port != 5433 {
			t.Errorf("%s: what is used changed: %v", what, err)
		}
		write("pass", "127.0.0.1:5433:hooks:posthorn:s3cret\n")
		write("service", service)
	}
	write("pass", "127.0.0.1:5433:hooks:posthorn:renewed\n")
	if err := r.reread(address); err != nil {
		t.Fatal(err)
	}
	if c, err := r.config(address); err != nil || c.Password != "renewed" {
		t.Errorf("the renewed password is not used: %v", err)
	}
}
