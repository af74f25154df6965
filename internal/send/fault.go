package send

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/posthorn/posthorn"
)

// fault is why an attempt has no answer. detail goes to the tenant: it is one
// of our own phrases, never the text of err, which may hold addresses and goes
// to the operator's log.
type fault struct {
	class  posthorn.Class
	detail string
	err    error
}

func (f *fault) Error() string {
	if f.err == nil {
		return f.detail
	}
	return f.err.Error()
}

func (f *fault) Unwrap() error { return f.err }

var (
	errHeadTooLarge   = errors.New("the answer's headers exceed the limit")
	errHeadTooLong    = errors.New("the answer's headers have too many lines")
	errCrowded        = errors.New("too many connections of the tenant to the address")
	errShut           = errors.New("the gate is shut")
	errNothingWritten = errors.New("a kept connection was closed before anything was written")
)

// fail writes the fault into the attempt.
func (x *exchange) fail(ctx context.Context, err error) {
	a := &x.attempt
	a.Duration = time.Since(x.began)
	f, ok := errors.AsType[*fault](err)
	if !ok {
		f = &fault{class: posthorn.ClassLocal, err: err}
	}
	a.Class, a.Detail = f.class, f.detail
	if ctx.Err() != nil && isTimeout(err) {
		a.Class, a.Detail = posthorn.ClassLocal, "the attempt was broken off by a shutdown"
	}
	x.client.logFault(ctx, &x.request, a, err)
}

// logFault tells the operator what tenants are not told. Faults of our own side
// and refused addresses are somebody's to look into; the rest is the receivers'
// daily life. The URL's path and query stay out: they may hold secrets.
func (c *Client) logFault(ctx context.Context, r *Request, a *posthorn.Attempt, err error) {
	level := slog.LevelDebug
	own := a.Class == posthorn.ClassLocal && ctx.Err() == nil && !errors.Is(err, errCrowded)
	if own || a.Class == posthorn.ClassRefused || isObstacle(err) {
		level = slog.LevelWarn
	}
	if !c.log.Enabled(ctx, level) {
		return
	}
	host := ""
	if t, err := c.guard.parse(r.URL); err == nil {
		host = t.header
	}
	c.log.LogAttrs(ctx, level, "attempt has no answer",
		slog.String("delivery", r.Delivery.Text(posthorn.DeliveryPrefix)), slog.Int("attempt", a.Number),
		slog.String("host", host), slog.String("class", a.Class.String()), slog.Any("err", err))
}

// isTimeout reports whether time ran out, or the attempt was called off, which
// shows in the same way.
func isTimeout(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// isLocal reports whether the operating system refused for a reason on our
// side: no descriptors, ports or memory; or we did. A noWay is another matter.
func isLocal(err error) bool {
	if errors.Is(err, errCrowded) {
		return true
	}
	for _, errno := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.EADDRNOTAVAIL, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// connectFault classifies an error of dialling a host.
func (c *Client) connectFault(err error, host string) error {
	if _, ok := errors.AsType[*fault](err); ok {
		return err
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return c.dnsFault(dns, host)
	}
	if w, ok := errors.AsType[*noWay](err); ok {
		return c.noWayFault(w, host)
	}
	switch {
	case isTimeout(err) || errors.Is(err, syscall.ETIMEDOUT):
		return &fault{posthorn.ClassTimeout, "while connecting", err}
	case isLocal(err):
		return &fault{posthorn.ClassLocal, "", err}
	case forbidden(err):
		return c.forbiddenFault(err, host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return &fault{posthorn.ClassConnect, "connection refused", err}
	case errors.Is(err, syscall.EHOSTUNREACH):
		return &fault{posthorn.ClassConnect, "host unreachable", err}
	case errors.Is(err, syscall.ECONNRESET):
		return &fault{posthorn.ClassReset, "while connecting", err}
	}
	return &fault{posthorn.ClassConnect, "", err}
}

// dnsFault tells a name without an address, which is the endpoint's fault, from
// a resolver that cannot be reached, which is ours.
func (c *Client) dnsFault(err *net.DNSError, host string) error {
	switch {
	case err.IsNotFound:
		return &fault{posthorn.ClassDNS, "no such host", err}
	case isTimeout(err):
		return &fault{posthorn.ClassDNS, "the name servers did not answer in time", err}
	case socketFailed(err, "udp"):
		return &fault{posthorn.ClassLocal, "", err}
	case socketFailed(err, "tcp") && c.outage.fail(host):
		return &fault{posthorn.ClassLocal, "", err}
	}
	return &fault{posthorn.ClassDNS, "the name servers did not give an answer", err}
}

// socketFailed reports whether the way to the resolver is what failed. TCP is asked
// for what is too large for UDP, so a resolver that takes none fails for some names
// only. Go keeps only the text of that error, and it is net.OpError's: "read udp …:
// connection refused". A test holds it.
func socketFailed(err *net.DNSError, network string) bool {
	for _, op := range []string{"dial ", "read ", "write "} {
		if strings.HasPrefix(err.Err, op+network) {
			return true
		}
	}
	return false
}

// tlsFault classifies an error of the TLS handshake.
func tlsFault(err error) error {
	if _, ok := errors.AsType[x509.SystemRootsError](err); ok {
		return &fault{posthorn.ClassLocal, "", err}
	}
	if detail, ok := certificateDetail(err); ok {
		return &fault{posthorn.ClassTLS, detail, err}
	}
	if alert, ok := remoteAlert(err); ok {
		return alertFault(alert, err)
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return &fault{posthorn.ClassTLS, "the server does not speak TLS at this port", err}
	}
	switch {
	case isTimeout(err):
		return &fault{posthorn.ClassTimeout, "during the TLS handshake", err}
	case broken(err):
		return &fault{posthorn.ClassReset, "during the TLS handshake", err}
	case strings.Contains(err.Error(), "protocol version"):
		return &fault{posthorn.ClassTLS, "the server offers no TLS version from 1.2 up", err}
	}
	return &fault{posthorn.ClassTLS, "the handshake failed", err}
}

// broken reports whether the connection ended or was torn down.
func broken(err error) bool {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, net.ErrClosed) {
		return true
	}
	op, ok := errors.AsType[*net.OpError](err)
	return ok && op.Op != "remote error" && op.Op != "local error"
}

func certificateDetail(err error) (string, bool) {
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		switch {
		case e.Reason != x509.Expired:
			return "the certificate is not valid for this use", true
		case time.Now().Before(e.Cert.NotBefore):
			return "the certificate is not valid yet", true
		}
		return "the certificate has expired", true
	}
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return hostnameDetail(e.Certificate), true
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		if e.Cert != nil && bytes.Equal(e.Cert.RawIssuer, e.Cert.RawSubject) {
			return "the certificate is self-signed", true
		}
		return "the certificate is signed by an unknown authority; an intermediate certificate may be missing", true
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the certificate cannot be verified", true
	}
	return "", false
}

// hostnameDetail tells a certificate for another host from one for none: an old one with
// the host in its Common Name, which nothing looks at any more (RFC 9525).
func hostnameDetail(c *x509.Certificate) string {
	if len(c.DNSNames) == 0 && len(c.IPAddresses) == 0 {
		return "the certificate names no host in a subjectAltName, and its Common Name does not count; have it issued again with one"
	}
	return "the certificate is for another host name"
}

// remoteAlert returns what the server said when it broke off. Go keeps the
// alert's type to itself, so its text must do; a test holds the texts below.
func remoteAlert(err error) (text string, ok bool) {
	op, ok := errors.AsType[*net.OpError](err)
	if !ok || op.Op != "remote error" || op.Err == nil {
		return "", false
	}
	return op.Err.Error(), true
}

// alertFault classifies an alert. A receiver that wants another protocol than
// HTTP/1.1 (one for HTTP/2 only) has no fault in its TLS.
func alertFault(alert string, err error) error {
	if alert == "tls: no application protocol" {
		return &fault{posthorn.ClassProtocol, "the server does not speak HTTP/1.1", err}
	}
	return &fault{posthorn.ClassTLS, alertDetail(alert), err}
}

// alertDetail names the alerts (RFC 8446, section 6.2) that tell a partner
// something.
func alertDetail(alert string) string {
	switch alert {
	case "tls: handshake failure", "tls: insufficient security level":
		return "the server found no TLS parameters in common, or asks for a client certificate"
	case "tls: bad certificate", "tls: certificate required":
		return "the server asks for a client certificate"
	case "tls: protocol version not supported":
		return "the server offers no TLS version from 1.2 up"
	case "tls: unrecognized name":
		return "the server does not know this host name"
	}
	return "the server broke off the handshake"
}

// readFault classifies an error before the answer's headers were complete.
func readFault(err error, informational bool) error {
	if alert, ok := remoteAlert(err); ok {
		// TLS 1.3 servers say only now that they wanted a client certificate.
		return alertFault(alert, err)
	}
	switch {
	case informational && (errors.Is(err, errHeadTooLarge) || errors.Is(err, errHeadTooLong)):
		return &fault{posthorn.ClassProtocol, "interim answers without end", err}
	case errors.Is(err, errHeadTooLarge):
		return &fault{posthorn.ClassResponseTooLarge, "more than 64 KiB", err}
	case errors.Is(err, errHeadTooLong):
		return &fault{posthorn.ClassResponseTooLarge, "more than 256 lines", err}
	case isTimeout(err):
		return &fault{posthorn.ClassTimeout, "", err}
	case broken(err):
		return &fault{posthorn.ClassReset, "", err}
	}
	return &fault{posthorn.ClassProtocol, "", err}
}
