package renew

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
)

// Pair is a certificate with its key, for a server. It is safe for concurrent use.
type Pair struct {
	current atomic.Pointer[tls.Certificate]
}

// Pair has the files of a certificate and its key watched, under the setting. A pair
// that does not go together, has ended or is not good yet is not taken, unless it is
// there at the start: a service that was stopped must be able to start.
func (w *Watch) Pair(setting, certFile, keyFile string) (*Pair, error) {
	p := &Pair{}
	err := w.Add(Source{Setting: setting, Files: []string{certFile, keyFile}, Take: func(contents [][]byte) error {
		return p.take(contents[0], contents[1], time.Now())
	}})
	return p, err
}

// GetCertificate is for [tls.Config]. It reads no file.
func (p *Pair) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return p.current.Load(), nil
}

// Ends is when the certificate in use ends.
func (p *Pair) Ends() time.Time { return p.current.Load().Leaf.NotAfter }

func (p *Pair) take(cert, key []byte, now time.Time) error {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return fmt.Errorf("certificate and key do not make a pair: %w", err)
	}
	if p.current.Load() != nil {
		if err := errors.Join(whole(cert), timely(pair.Leaf, now)); err != nil {
			return err
		}
	}
	p.current.Store(&pair)
	return nil
}

// timely says why a certificate is not good now.
func timely(c *x509.Certificate, now time.Time) error {
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate ended on %s", posthorn.FormatTime(c.NotAfter))
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate is good from %s only", posthorn.FormatTime(c.NotBefore))
	}
	return nil
}

// Authorities has a PEM file of authorities watched. use is called with the system's
// and those of the file: by this call, and after each change. A file that is cut off,
// or in which all have ended, is not taken, unless it is there at the start.
func (w *Watch) Authorities(setting, file string, use func(*x509.CertPool)) error {
	started := false
	return w.Add(Source{Setting: setting, Files: []string{file}, Take: func(contents [][]byte) error {
		pool, err := ReadAuthorities(contents[0])
		if err == nil && started {
			err = errors.Join(whole(contents[0]), anyTimely(contents[0], time.Now()))
		}
		if err != nil {
			return fmt.Errorf("%s %w", file, err)
		}
		started = true
		use(pool)
		return nil
	}})
}

// ReadAuthorities returns the system's authorities and those of a PEM text, of which
// there must be one.
func ReadAuthorities(text []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot be added to the system's certificate authorities, which cannot be read: %w", err)
	}
	if !pool.AppendCertsFromPEM(text) {
		return nil, errors.New("holds no PEM certificate")
	}
	return pool, nil
}

// anyTimely says that no certificate of the text is good now.
func anyTimely(text []byte, now time.Time) error {
	var failed error
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			continue // as AppendCertsFromPEM does
		}
		if failed = timely(c, now); failed == nil {
			return nil
		}
	}
	if failed != nil {
		return fmt.Errorf("holds none that is good now: %w", failed)
	}
	return nil
}

// whole says that a PEM text was cut off. The decoder passes over a block that has
// no end, and takes what came before.
func whole(text []byte) error {
	begun, read := 0, 0
	for line := range bytes.Lines(text) {
		if bytes.HasPrefix(line, []byte("-----BEGIN ")) {
			begun++
		}
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		read++
	}
	if read < begun {
		return fmt.Errorf("ends within a PEM block, or one cannot be decoded: %d of %d are whole", read, begun)
	}
	return nil
}
