package send

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

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
	if err := c.requestTunnel(nc, t.address()); err != nil {
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

func (c *Client) requestTunnel(nc net.Conn, address string) error {
	_, err := io.WriteString(nc, "CONNECT "+address+" HTTP/1.1\r\nHost: "+address+"\r\nUser-Agent: "+c.userAgent+"\r\n"+c.proxy.authorization+"\r\n")
	var resp *http.Response
	if err == nil {
		// The proxy says nothing more until we speak, so nothing is read too far.
		resp, err = http.ReadResponse(bufio.NewReader(io.LimitReader(nc, maxHead)), &http.Request{Method: http.MethodConnect})
	}
	switch {
	case isTimeout(err):
		// The proxy accepted us and waits for the receiver.
		return &fault{posthorn.ClassTimeout, "while connecting", err}
	case err != nil:
		return &fault{posthorn.ClassLocal, "", fmt.Errorf("egress proxy: %w", err)}
	}
	return tunnelFault(resp)
}

// tunnelFault says what a proxy's answer to CONNECT means; nil for a tunnel.
func tunnelFault(resp *http.Response) error {
	err := fmt.Errorf("egress proxy answered %d to CONNECT", resp.StatusCode)
	switch code := resp.StatusCode; {
	case code >= 200 && code <= 299:
		return nil
	case code == http.StatusForbidden, code == http.StatusProxyAuthRequired && resp.Header.Get("Proxy-Authenticate") == "":
		// Smokescreen refuses a destination with 407, and asks for no password.
		return &fault{posthorn.ClassRefused, "", err}
	case code == http.StatusBadGateway:
		return &fault{posthorn.ClassConnect, "", err}
	case code == http.StatusGatewayTimeout:
		return &fault{posthorn.ClassTimeout, "while connecting", err}
	}
	return &fault{posthorn.ClassLocal, "", err}
}
