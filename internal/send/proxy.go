package send

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"github.com/posthorn/posthorn"
)

// proxy is the operator's way out.
type proxy struct {
	host, address string
	tls           bool
	authorization string // the header line, or ""
}

func newProxy(u *url.URL) (*proxy, error) {
	port := u.Port()
	switch {
	case u.Scheme == "http" && port == "":
		port = "80"
	case u.Scheme == "https" && port == "":
		port = "443"
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("the egress proxy must be an http:// or https:// URL")
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("the egress proxy must be a URL of a host and a port only, such as http://smokescreen:4750")
	}
	p := &proxy{host: u.Hostname(), address: net.JoinHostPort(u.Hostname(), port), tls: u.Scheme == "https"}
	if u.User != nil {
		password, _ := u.User.Password()
		basic := base64.StdEncoding.EncodeToString([]byte(u.User.Username() + ":" + password))
		p.authorization = "Proxy-Authorization: Basic " + basic + "\r\n"
	}
	return p, nil
}

// tunnel asks the proxy for a connection to the target. What goes wrong on the
// way to the proxy is a fault of our own side. The proxy's address is the
// operator's choice and is not judged.
func (c *Client) tunnel(ctx context.Context, t *target) (net.Conn, error) {
	nc, err := c.dialProxy(ctx)
	if err != nil {
		return nil, &fault{posthorn.ClassLocal, "", fmt.Errorf("egress proxy: %w", err)}
	}
	stop := context.AfterFunc(ctx, func() { nc.SetDeadline(longAgo) })
	defer stop()
	if err := c.requestTunnel(nc, t); err != nil {
		nc.Close()
		return nil, err
	}
	return nc, nil
}

func (c *Client) dialProxy(ctx context.Context) (net.Conn, error) {
	if c.dial != nil {
		return c.dial(ctx, "tcp", c.proxy.address)
	}
	dialer := net.Dialer{Resolver: c.resolver}
	nc, err := dialer.DialContext(ctx, "tcp", c.proxy.address)
	if err != nil || !c.proxy.tls {
		return nc, err
	}
	secured := tls.Client(nc, c.tlsFor(c.proxy.host))
	if err := secured.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, err
	}
	return secured, nil
}

func (c *Client) requestTunnel(nc net.Conn, t *target) error {
	address := t.address()
	_, err := io.WriteString(nc, "CONNECT "+address+" HTTP/1.1\r\nHost: "+address+"\r\nUser-Agent: "+c.userAgent+"\r\n"+c.proxy.authorization+"\r\n")
	var a *answer
	if err == nil {
		// The proxy says nothing more until we speak, so nothing is read too far.
		reader := &conn{Conn: nc, left: maxHead}
		reader.takeReader()
		a, err = readHead(reader)
		reader.leaveReader()
	}
	if err != nil {
		return c.noTunnel(err, t.host)
	}
	return c.tunnelFault(a, t.host)
}

// noTunnel says whose fault it is that the proxy did not answer.
func (c *Client) noTunnel(err error, host string) error {
	if f, ok := errors.AsType[*fault](err); ok && f.class == posthorn.ClassTimeout || isTimeout(err) {
		// The proxy accepted us and waits for the receiver.
		c.outage.pass(host)
		return &fault{posthorn.ClassTimeout, "while connecting", err}
	}
	err = fmt.Errorf("egress proxy: %w", err)
	if c.outage.others(host) {
		// It serves others: there are proxies that hang up on a destination.
		return &fault{posthorn.ClassConnect, "the egress proxy broke off", &proxyError{err}}
	}
	return &fault{posthorn.ClassLocal, "", err}
}

// proxyError is what a proxy did that was reached, instead of making a connection.
type proxyError struct{ error }

func (e *proxyError) Unwrap() error { return e.error }

// tunnelFault says what a proxy's answer to CONNECT means; nil for a tunnel. A proxy
// that answers was reached, so what it says is about the destination, unless it
// says the same of all of them.
func (c *Client) tunnelFault(a *answer, host string) error {
	code := a.status
	out := false
	if code >= 500 && code <= 599 {
		out = c.outage.fail(host)
	} else {
		c.outage.pass(host)
	}
	err := &proxyError{fmt.Errorf("egress proxy answered %d to CONNECT", code)}
	switch {
	case code >= 200 && code <= 299:
		return nil
	case out, code == http.StatusProxyAuthRequired && a.value("proxy-authenticate") != "":
		return &fault{posthorn.ClassLocal, "", err}
	case code == http.StatusForbidden, code == http.StatusProxyAuthRequired:
		// Smokescreen refuses a destination with 407, and asks for no password.
		return &fault{posthorn.ClassRefused, "", err}
	case code == http.StatusGatewayTimeout:
		return &fault{posthorn.ClassTimeout, "while connecting", err}
	}
	return &fault{posthorn.ClassConnect, "the egress proxy answered " + strconv.Itoa(code), err}
}
