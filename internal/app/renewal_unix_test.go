//go:build unix

package app

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/secretbox"
)

// presentedBy is the end of the certificate that a service presents, which tells them
// apart.
func presentedBy(t *testing.T, s *service) time.Time {
	t.Helper()
	address := s.base[strings.LastIndex(s.base, "/")+1:]
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.ConnectionState().PeerCertificates[0].NotAfter
}

// hangUp has this process's services read their files again.
func hangUp(t *testing.T) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// copyOf puts what a file holds into another one.
func copyOf(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	writeTo(t, to, b)
}

func writeTo(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// onTLS starts a service whose certificate ends then.
func onTLS(t *testing.T, ends time.Time, more ...string) (s *service, cert, key string) {
	t.Helper()
	cert, key = certificate(t, t.TempDir(), ends)
	s, _ = exposed(t, false, append(more, "POSTHORN_TLS_CERT="+cert, "POSTHORN_TLS_KEY="+key)...)
	s.base = strings.Replace(s.base, "http://", "https://", 1)
	return s, cert, key
}

// ready is what a service on TLS says at /readyz.
func (s *service) ready(t *testing.T) string {
	t.Helper()
	address := s.base[strings.LastIndex(s.base, "/")+1:]
	c, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A service presents the renewed certificate without a restart, and the former one
// while the renewed one is not good; metric, /readyz and log say which.
func TestAServicePresentsTheRenewedCertificate(t *testing.T) {
	soon := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, ask := range map[string]func(t *testing.T){"by itself": func(*testing.T) {}, "at once on SIGHUP": hangUp} {
		t.Run(name, func(t *testing.T) {
			s, cert, key := onTLS(t, soon)
			if got := presentedBy(t, s); !got.Equal(soon) {
				t.Fatalf("it presents one that ends on %v, want %v", got, soon)
			}
			later := soon.Add(30 * 24 * time.Hour)
			certificate(t, filepath.Dir(cert), later)
			ask(t)
			eventually(t, "the renewed certificate", func() bool { return presentedBy(t, s).Equal(later) })
			eventually(t, "the metrics", func() bool {
				_, figures := get(t, s.ops+"/metrics")
				return strings.Contains(figures, `posthorn_renewed_files_total{setting="tls-cert"} 1`) &&
					strings.Contains(figures, `posthorn_renewed_file_bad{setting="tls-cert"} 0`) &&
					strings.Contains(figures, fmt.Sprintf("posthorn_certificate_end_timestamp_seconds %.9e", float64(later.Unix())))
			})

			if name == "by itself" { // package renew has the rest, in virtual time
				return
			}
			for what, spoil := range map[string]func(){
				"a key of another": func() { _, other := certificate(t, t.TempDir(), later); copyOf(t, other, key) },
				"no certificate":   func() { writeTo(t, cert, []byte("s3cret text")) },
				"a missing key":    func() { os.Remove(key) },
				"one that ended":   func() { certificate(t, filepath.Dir(cert), time.Now().Add(-time.Minute)) },
			} {
				spoil()
				ask(t)
				eventually(t, what+" in /readyz", func() bool { return strings.Contains(s.ready(t), "ready; but what the files of tls-cert hold") })
				if got := presentedBy(t, s); !got.Equal(later) {
					t.Errorf("%s: it presents one that ends on %v, want the former", what, got)
				}
				if _, figures := get(t, s.ops+"/metrics"); !strings.Contains(figures, `posthorn_renewed_file_bad{setting="tls-cert"} 1`) {
					t.Errorf("%s: the metric does not say so", what)
				}
				certificate(t, filepath.Dir(cert), later.Add(time.Hour))
				later = later.Add(time.Hour)
				ask(t)
				eventually(t, "a good one after "+what, func() bool {
					return presentedBy(t, s).Equal(later) && strings.HasSuffix(strings.TrimSpace(s.ready(t)), "ready")
				})
			}
			log := s.log.String()
			if !strings.Contains(log, "do not make a pair") || !strings.Contains(log, cert) || strings.Contains(log, "s3cret") {
				t.Errorf("the log says:\n%s", log)
			}
		})
	}
}

// Attempts are made with the authorities that the file holds now. A connection that
// was verified by others is not used again, however busy it is.
func TestDeliveriesFollowTheRenewedAuthorities(t *testing.T) {
	ours, theirs := hell.NewAuthority(t), hell.NewAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeTo(t, ca, theirs.PEM())
	r := hell.Listen(t, ours.Server(t, nil), hell.Answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	w := networkForTest(t, nil, "POSTHORN_ALLOW_PRIVATE=127.0.0.1/32", "POSTHORN_EGRESS_CA="+ca)
	id := w.endpoint(t, r.URLS())
	class := func() string {
		t.Helper()
		d := w.deliver(t, `{}`)[id]
		if d.State == "succeeded" {
			return posthorn.ClassOK.String()
		}
		attempts := d.Attempts
		if len(attempts) == 0 {
			full, err := w.partner.Delivery(t.Context(), d.ID)
			if err != nil {
				t.Fatal(err)
			}
			attempts = full.Attempts
		}
		return attempts[len(attempts)-1].Class
	}
	read := 0
	renewed := func(text []byte) {
		t.Helper()
		writeTo(t, ca, text)
		hangUp(t)
		read++
		eventually(t, "the files read again", func() bool { return strings.Count(w.at.log.String(), "as SIGHUP asks for") >= read })
	}
	for _, step := range []struct {
		what string
		text []byte
		want posthorn.Class
	}{
		{"others", nil, posthorn.ClassTLS},
		{"ours", ours.PEM(), posthorn.ClassOK},
		{"cut off", theirs.PEM()[:200], posthorn.ClassOK},
		{"text", []byte("text"), posthorn.ClassOK},
		{"others in place of ours", theirs.PEM(), posthorn.ClassTLS},
		{"both", append(theirs.PEM(), ours.PEM()...), posthorn.ClassOK},
	} {
		if step.text != nil {
			renewed(step.text)
		}
		if got := class(); got != step.want.String() {
			t.Errorf("%s: %s, want %s", step.what, got, step.want)
		}
	}
	conns, requests := r.Counts()
	if requests != 4 || conns < 4 { // two handshakes that failed, and one for each set of ours
		t.Errorf("%d connections, %d requests", conns, requests)
	}
}

// Keys of identity providers are fetched with the authorities that the file holds
// now, at once.
func TestProvidersFollowTheRenewedAuthorities(t *testing.T) {
	p := idp.Start(idp.NewKey("k1", "ES256"))
	defer p.Close()
	p.Register("portal", "s3cret", map[string]any{"tenant": "acme"})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	writeTo(t, ca, hell.NewAuthority(t).PEM())
	s := serveForTest(t, "POSTHORN_OIDC_ISSUER="+p.URL, "POSTHORN_OIDC_AUDIENCE=posthorn", "POSTHORN_OIDC_CA="+ca)
	s.tenant(t, "acme")
	eventually(t, "the trouble in readiness", func() bool {
		_, text := get(t, s.base+"/readyz")
		return strings.Contains(text, "but the keys of "+p.URL)
	})
	writeTo(t, ca, p.CAFile())
	hangUp(t)
	eventually(t, "recovery", func() bool {
		_, text := get(t, s.base+"/readyz")
		return strings.TrimSpace(text) == "ready"
	})
	jwt, err := client.New(client.Config{Server: s.base, Token: fetchToken(t, p, "portal", "s3cret", "webhooks:read")})
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range jwt.Endpoints(t.Context()) {
		if err != nil {
			t.Error(err)
		}
	}
}

// The doctor looks at what is served. It is given files of its own, for the service
// reads its files again meanwhile.
func TestDoctorLooksAtTheCertificateThatIsServed(t *testing.T) {
	long := time.Now().Add(60 * 24 * time.Hour).Truncate(time.Second)
	soon, ended := time.Now().Add(time.Hour), time.Now().Add(-time.Hour)
	for name, tt := range map[string]struct {
		served, file time.Time
		spoil        func(t *testing.T, cert, key string)
		want         []string
	}{
		"the same":                   {long, time.Time{}, nil, []string{"ok: it is good until", "ok: the service serves the one of the file"}},
		"both end soon":              {soon, time.Time{}, nil, []string{"wrong: it ends on", "wrong: the one that the service serves ends on"}},
		"another":                    {long, long.Add(time.Hour), nil, []string{"ok: it is good", "wrong: the service serves another certificate than the file; the one that it serves ends on", "kill -HUP "}},
		"another, which ended":       {ended, long, nil, []string{"ok: it is good", "wrong: the service serves another certificate than the file; the one that it serves ended on"}},
		"the file's ended":           {long, ended, nil, []string{"wrong: it ended on", "wrong: the service serves another certificate"}},
		"the file is text":           {long, long, func(t *testing.T, cert, _ string) { writeTo(t, cert, []byte("text")) }, []string{"wrong: tls: ", "ok: the one that the service serves is good until"}},
		"the key is gone, ends soon": {soon, long, func(t *testing.T, _, key string) { os.Remove(key) }, []string{"wrong: open ", "wrong: the one that the service serves ends on"}},
	} {
		t.Run(name, func(t *testing.T) {
			s, cert, key := onTLS(t, tt.served)
			if !tt.file.IsZero() {
				cert, key = certificate(t, t.TempDir(), tt.file)
			}
			env := []string{"POSTHORN_STORE=sqlite:" + s.path, "POSTHORN_LISTEN=" + strings.TrimPrefix(s.base, "https://"), "POSTHORN_TLS_CERT=" + cert, "POSTHORN_TLS_KEY=" + key}
			cfg := loadServe(t, s.path, env...)
			if tt.spoil != nil {
				tt.spoil(t, cert, key)
			}
			var b strings.Builder
			if err := doctor.Run(t.Context(), Diagnose(cfg, "localhost"), func(f doctor.Finding) error {
				if f.Check == "certificate" {
					fmt.Fprintf(&b, "%s: %s | %s\n", f.State, f.What, f.Mend)
				}
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			wants(t, b.String(), tt.want...)
			if got := strings.Count(b.String(), "\n"); got != 2 {
				t.Errorf("it finds %d things:\n%s", got, b.String())
			}
		})
	}

	cert, key := certificate(t, t.TempDir(), long)
	cfg := loadServe(t, filepath.Join(t.TempDir(), "posthorn.db"), "POSTHORN_TLS_CERT="+cert, "POSTHORN_TLS_KEY="+key)
	if f := checkServed(t.Context(), &cfg, nil, time.Now()); f.State != "skipped" {
		t.Errorf("without a service: %+v", f)
	}
	plain, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for c, err := plain.Accept(); err == nil; c, err = plain.Accept() {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			c.Close()
		}
	}()
	if f := checkServed(t.Context(), &cfg, nil, time.Now()); f.State != "wrong" || !strings.Contains(f.What, "presents no certificate") {
		t.Errorf("without TLS: %+v", f)
	}
}

// SIGHUP ends no service, at whatever time it comes, and any number of times.
func TestSIGHUPEndsNoService(t *testing.T) {
	key := "POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")
	for name, start := range map[string]func(t *testing.T, address string) *program{
		"serve": func(t *testing.T, address string) *program {
			return run(t, "22", []string{key, "POSTHORN_SHUTDOWN_DELAY=0"}, "serve", "--listen", address, "--ops-listen", "off", "--store", "sqlite:"+filepath.Join(t.TempDir(), "p.db"))
		},
		"serve with TLS": func(t *testing.T, address string) *program {
			cert, tlsKey := certificate(t, t.TempDir(), time.Now().Add(time.Hour))
			return run(t, "22", []string{key, "POSTHORN_SHUTDOWN_DELAY=0"}, "serve", "--listen", address, "--ops-listen", "off", "--store", "sqlite:"+filepath.Join(t.TempDir(), "p.db"),
				"--tls-cert", cert, "--tls-key", tlsKey)
		},
		"dev": func(t *testing.T, address string) *program {
			return run(t, "22", nil, "dev", "--listen", address, "--ops-listen", "off", "--dir", filepath.Join(t.TempDir(), "dev"), "--log-level", "info")
		},
	} {
		t.Run(name, func(t *testing.T) {
			address := freeAddress(t)
			p := start(t, address)
			up := func() bool {
				c, err := net.Dial("tcp", address)
				if err == nil {
					c.Close()
				}
				return err == nil
			}
			eventually(t, "a listener", up)
			for range 3 {
				if err := p.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
			}
			eventually(t, "the signal in the log", func() bool { return strings.Contains(p.log.String(), "as SIGHUP asks for") })
			if !up() {
				t.Errorf("it does not listen any more:\n%s", p.log)
			}
			p.end(t, syscall.SIGTERM, 0)
		})
	}
}

// SIGHUP ends a command on a store, and leaves the store whole.
func TestSIGHUPLeavesAStoreWhole(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "posthorn.db")
	keys := "POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")
	s := serveStore(t, path, keys)
	api := s.tenant(t, "acme")
	for range 200 {
		must(api.Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(`{"x":"` + strings.Repeat("x", 100<<10) + `"}`)}))(t)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for name, args := range map[string][]string{
		"backup":  {"store", "backup", filepath.Join(dir, "to", "backup.db"), "--store", "sqlite:" + path},
		"migrate": {"migrate", "--store", "sqlite:" + path},
		"tenant":  {"tenant", "create", "other", "--store", "sqlite:" + path},
		"token":   {"token", "create", "--tenant", "acme", "--store", "sqlite:" + path},
	} {
		for _, moment := range []string{"at once", "when it works"} {
			to := filepath.Join(dir, "to")
			if err := errors.Join(os.RemoveAll(to), os.Mkdir(to, 0o700)); err != nil {
				t.Fatal(err)
			}
			p := run(t, "22", nil, args...)
			ended := make(chan struct{})
			go func() { p.Wait(); close(ended) }()
			eventually(t, "the moment", func() bool {
				list, err := os.ReadDir(to)
				select {
				case <-ended:
					return true
				default:
					return moment == "at once" || err == nil && len(list) > 0
				}
			})
			p.Process.Signal(syscall.SIGHUP)
			<-ended
			wants(t, diagnosed(t, "POSTHORN_STORE=sqlite:"+path), "store: ok: "+path+" has this version's schema")
			if backup := filepath.Join(to, "backup.db"); name == "backup" {
				if _, err := os.Stat(backup); err == nil { // then it is a whole one
					wants(t, diagnosed(t, "POSTHORN_STORE=sqlite:"+backup), "store: ok: "+backup+" has this version's schema")
				}
			}
		}
	}
	again := serveStore(t, path, keys)
	if _, err := again.tenant(t, "acme").Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(`{}`)}); err != nil {
		t.Error(err)
	}
}
