package renew

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// folder is a folder of files that a test renews.
type folder struct {
	t   *testing.T
	dir string
}

func (f folder) path(name string) string { return filepath.Join(f.dir, name) }

func (f folder) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

func (f folder) write(name string, b []byte) {
	f.t.Helper()
	f.must(os.WriteFile(f.path(name), b, 0o600))
}

// made is a pair as PEM.
type made struct{ cert, key []byte }

var serial int64

// pair makes a certificate that is good for a while from now on, and its key.
func pair(t *testing.T, from, to time.Duration) made {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial++
	form := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "renewed"}, NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to)}
	der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return made{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})}
}

func (m made) serial(t *testing.T) int64 {
	t.Helper()
	block, _ := pem.Decode(m.cert)
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return c.SerialNumber.Int64()
}

// output may be read while it is written.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// watched runs a watch of one pair in virtual time.
func watched(t *testing.T, test func(f folder, old made, p *Pair, w *Watch, log *output, at chan os.Signal)) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := folder{t, dir}
		old := pair(t, -time.Hour, 24*time.Hour)
		f.must(os.Mkdir(f.path("1"), 0o700))
		f.write("1/cert", old.cert)
		f.write("1/key", old.key)
		// As Kubernetes mounts a secret: files are links through a link to a folder.
		f.must(os.Symlink("1", f.path("..data")))
		f.must(os.Symlink("..data/cert", f.path("cert")))
		f.must(os.Symlink("..data/key", f.path("key")))
		log := &output{}
		w := New(slog.New(slog.NewTextHandler(log, nil)))
		p, err := w.Pair("tls-cert", f.path("cert"), f.path("key"))
		f.must(err)
		ctx, cancel := context.WithCancel(t.Context())
		at := make(chan os.Signal, 1)
		var running sync.WaitGroup
		running.Go(func() { w.Run(ctx, at) })
		test(f, old, p, w, log, at)
		cancel()
		running.Wait()
	})
}

func serves(t *testing.T, p *Pair) int64 {
	t.Helper()
	c, err := p.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	if !c.PrivateKey.(*ecdsa.PrivateKey).PublicKey.Equal(c.Leaf.PublicKey) {
		t.Error("the pair that is served does not go together")
	}
	return c.Leaf.SerialNumber.Int64()
}

// A renewed pair is served, however it is renewed.
func TestARenewedPairIsServed(t *testing.T) {
	for name, renew := range map[string]func(f folder, n made){
		"written over": func(f folder, n made) {
			f.write("cert", n.cert)
			f.write("key", n.key)
		},
		"the key first": func(f folder, n made) {
			f.write("key", n.key)
			time.Sleep(20 * time.Second)
			f.write("cert", n.cert)
		},
		"the certificate first, a minute before": func(f folder, n made) {
			f.write("cert", n.cert)
			time.Sleep(time.Minute)
			f.write("key", n.key)
		},
		"renamed into place": func(f folder, n made) {
			f.write("new-cert", n.cert)
			f.write("new-key", n.key)
			f.must(os.Rename(f.path("new-cert"), f.path("cert")))
			f.must(os.Rename(f.path("new-key"), f.path("key")))
		},
		"a folder behind a link": func(f folder, n made) {
			f.must(os.Mkdir(f.path("2"), 0o700))
			f.write("2/cert", n.cert)
			f.write("2/key", n.key)
			f.must(os.Symlink("2", f.path("..data_tmp")))
			f.must(os.Rename(f.path("..data_tmp"), f.path("..data")))
			f.must(os.RemoveAll(f.path("1")))
		},
		"gone and made again": func(f folder, n made) {
			f.must(os.Remove(f.path("cert")))
			f.must(os.Remove(f.path("key")))
			time.Sleep(time.Minute)
			f.write("cert", n.cert)
			f.write("key", n.key)
		},
		"with the time of the former files": func(f folder, n made) {
			info, err := os.Stat(f.path("cert"))
			f.must(err)
			f.write("cert", n.cert)
			f.write("key", n.key)
			f.must(os.Chtimes(f.path("cert"), info.ModTime(), info.ModTime()))
			f.must(os.Chtimes(f.path("key"), info.ModTime(), info.ModTime()))
		},
		"bit by bit": func(f folder, n made) {
			f.write("key", n.key)
			for i := range n.cert {
				f.write("cert", n.cert[:i])
				time.Sleep(time.Second / 20)
			}
			f.write("cert", n.cert)
		},
		"broken, then good": func(f folder, n made) {
			f.write("cert", []byte("no certificate"))
			time.Sleep(3 * time.Minute)
			f.write("cert", n.cert)
			f.write("key", n.key)
		},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(f folder, _ made, p *Pair, w *Watch, log *output, _ chan os.Signal) {
				n := pair(t, -time.Hour, 48*time.Hour)
				renew(f, n)
				time.Sleep(Every + 2*settle)
				if got, want := serves(t, p), n.serial(t); got != want {
					t.Errorf("certificate %d is served, want %d\n%s", got, want, log)
				}
				if s := w.States()[0]; s.Err != nil || s.Taken != 1 || w.Trouble() != nil {
					t.Errorf("it stands as %+v, %v", s, w.Trouble())
				}
				if strings.Count(log.String(), "a renewed file is in use") != 1 {
					t.Errorf("the log says:\n%s", log)
				}
			})
		})
	}
}

// What is not good is not served, is said once, and is forgotten when the former
// files are back.
func TestABrokenPairKeepsTheFormerOne(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(f folder, n made)
		says  string
	}{
		"the certificate alone":    {func(f folder, n made) { f.write("cert", n.cert) }, "do not make a pair"},
		"the key alone":            {func(f folder, n made) { f.write("key", n.key) }, "do not make a pair"},
		"the certificate is gone":  {func(f folder, _ made) { f.must(os.Remove(f.path("cert"))) }, "no such file"},
		"the link leads nowhere":   {func(f folder, _ made) { f.must(os.Remove(f.path("..data"))) }, "no such file"},
		"the key is empty":         {func(f folder, _ made) { f.write("key", nil) }, "is empty"},
		"the key is text":          {func(f folder, _ made) { f.write("key", []byte("secret-looking text")) }, "do not make a pair"},
		"they changed places":      {func(f folder, n made) { f.write("cert", n.key); f.write("key", n.cert) }, "do not make a pair"},
		"the certificate is large": {func(f folder, _ made) { f.write("cert", make([]byte, maxFile+1)) }, "is larger than"},
		"the chain is cut off": {func(f folder, n made) {
			f.write("cert", append(n.cert, n.cert[:len(n.cert)-40]...))
			f.write("key", n.key)
		}, "ends within a PEM block"},
		"a folder": {func(f folder, _ made) { f.must(os.Remove(f.path("cert"))); f.must(os.Mkdir(f.path("cert"), 0o700)) }, "not a regular file"},
		"one that has ended": {func(f folder, _ made) {
			n := pair(f.t, -48*time.Hour, -time.Hour)
			f.write("cert", n.cert)
			f.write("key", n.key)
		}, "the certificate ended on"},
		"one that is not good yet": {func(f folder, _ made) {
			n := pair(f.t, 12*time.Hour, 48*time.Hour)
			f.write("cert", n.cert)
			f.write("key", n.key)
		}, "is good from"},
	} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(f folder, old made, p *Pair, w *Watch, log *output, _ chan os.Signal) {
				tt.spoil(f, pair(t, -time.Hour, 48*time.Hour))
				time.Sleep(3 * time.Minute)
				if got, want := serves(t, p), old.serial(t); got != want {
					t.Errorf("certificate %d is served, want the former, %d", got, want)
				}
				if s := w.States()[0]; s.Err == nil || !strings.Contains(s.Err.Error(), tt.says) || s.Taken != 0 {
					t.Errorf("it stands as %+v, want %q", s, tt.says)
				}
				if err := w.Trouble(); err == nil || strings.Contains(err.Error(), f.dir) {
					t.Errorf("the trouble is %v", err)
				}
				said := log.String()
				if strings.Count(said, "level=WARN") != 1 || !strings.Contains(said, tt.says) || !strings.Contains(said, f.path("cert")) {
					t.Errorf("the log says:\n%s", said)
				}
				if strings.Contains(said, "secret-looking") {
					t.Errorf("the log shows what the file holds:\n%s", said)
				}
				f.must(os.RemoveAll(f.path("cert")))
				f.must(os.RemoveAll(f.path("key")))
				f.write("new-cert", old.cert)
				f.write("new-key", old.key)
				f.must(os.Rename(f.path("new-cert"), f.path("cert")))
				f.must(os.Rename(f.path("new-key"), f.path("key")))
				time.Sleep(Every + 2*settle)
				if w.Trouble() != nil || !strings.Contains(log.String(), "good again") {
					t.Errorf("when it is good again: %v\n%s", w.Trouble(), log)
				}
			})
		})
	}
}

// A certificate that is there before its time is served as soon as it is good.
func TestACertificateIsServedWhenItsTimeHasCome(t *testing.T) {
	watched(t, func(f folder, _ made, p *Pair, w *Watch, log *output, _ chan os.Signal) {
		n := pair(t, 5*time.Minute, 48*time.Hour)
		f.write("cert", n.cert)
		f.write("key", n.key)
		time.Sleep(5*time.Minute + Every + 2*settle)
		if got, want := serves(t, p), n.serial(t); got != want || w.Trouble() != nil {
			t.Errorf("certificate %d is served, want %d: %v", got, want, w.Trouble())
		}
	})
}

// Whoever asks has the files read at once, in the same instant.
func TestFilesAreReadAtOnceOnRequest(t *testing.T) {
	for name, good := range map[string]bool{"good": true, "half": false} {
		t.Run(name, func(t *testing.T) {
			watched(t, func(f folder, old made, p *Pair, w *Watch, log *output, at chan os.Signal) {
				n, want := pair(t, -time.Hour, 48*time.Hour), old.serial(t)
				f.write("cert", n.cert)
				if good {
					f.write("key", n.key)
					want = n.serial(t)
				}
				at <- os.Interrupt
				synctest.Wait()
				if got := serves(t, p); got != want || w.Trouble() == nil != good {
					t.Errorf("certificate %d is served, want %d: %v", got, want, w.Trouble())
				}
				if !strings.Contains(log.String(), "were read again") {
					t.Errorf("the log says:\n%s", log)
				}
			})
		})
	}
}

// A handshake reads no file: they may all be gone.
func TestAHandshakeReadsNoFile(t *testing.T) {
	watched(t, func(f folder, old made, p *Pair, _ *Watch, _ *output, _ chan os.Signal) {
		f.must(os.RemoveAll(f.dir))
		if serves(t, p) != old.serial(t) {
			t.Error("it is another certificate")
		}
	})
}

// At the start what cannot be used is refused, and what has ended is not: a service
// that was stopped starts again.
func TestTheStartTakesWhatCanBeUsed(t *testing.T) {
	f := folder{t, t.TempDir()}
	good, ended := pair(t, -time.Hour, time.Hour), pair(t, -2*time.Hour, -time.Hour)
	for name, tt := range map[string]struct {
		cert, key []byte
		refused   bool
	}{
		"good": {good.cert, good.key, false}, "ended": {ended.cert, ended.key, false},
		"apart": {good.cert, ended.key, true}, "empty": {nil, good.key, true}, "text": {good.cert, []byte("text"), true},
	} {
		f.write("cert", tt.cert)
		f.write("key", tt.key)
		_, err := New(slog.New(slog.DiscardHandler)).Pair("tls-cert", f.path("cert"), f.path("key"))
		if (err != nil) != tt.refused || err != nil && !strings.HasPrefix(err.Error(), "--tls-cert: ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Authorities are handed over when they change, and only then.
func TestRenewedAuthoritiesAreHandedOver(t *testing.T) {
	a, b, ended := pair(t, -time.Hour, 400*time.Hour).cert, pair(t, -time.Hour, 400*time.Hour).cert, pair(t, -2*time.Hour, -time.Hour).cert
	for name, tt := range map[string]struct {
		text  []byte
		taken int
		bad   bool
	}{
		"the same, written again": {a, 0, false},
		"another one":             {b, 1, false},
		"both":                    {append(bytes.Clone(a), b...), 1, false},
		"one that has ended, too": {append(bytes.Clone(ended), b...), 1, false},
		"with remarks":            {append([]byte("# ours\n\n"), b...), 1, false},
		"only an ended one":       {ended, 0, true},
		"cut off":                 {append(bytes.Clone(a), b[:len(b)/2]...), 0, true},
		"cut off at once":         {b[:len(b)/2], 0, true},
		"no certificate":          {[]byte("text"), 0, true},
		"nothing":                 {nil, 0, true},
	} {
		dir := t.TempDir()
		t.Run(name, func(t *testing.T) {
			f := folder{t, dir}
			f.write("ca", a)
			w, pools := New(slog.New(slog.DiscardHandler)), 0
			f.must(w.Authorities("egress-ca", f.path("ca"), func(p *x509.CertPool) {
				if p == nil {
					t.Error("no authorities were handed over")
				}
				pools++
			}))
			f.write("ca", tt.text)
			w.Now()
			w.Now()
			if pools != 1+tt.taken || (w.Trouble() != nil) != tt.bad {
				t.Errorf("handed over %d times, want %d; %v", pools, 1+tt.taken, w.States()[0].Err)
			}
		})
	}
}
