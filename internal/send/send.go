// Package send makes exactly one attempt: it puts one signed HTTP request on
// the wire, reads what is worth reading of the answer, and says in a
// [posthorn.Attempt] what came of it. It knows no store and never retries.
//
// What it sends to is hostile until shown otherwise: addresses are judged as
// they are dialled ([Guard]), everything that is read is bounded in time and in
// bytes, and nothing of it is followed. DESIGN.md says why it speaks HTTP/1.1
// itself instead of using http.Client.
package send

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/webhook"
)

// Config is what an operator decides about sending. The zero value sends to
// public addresses over https.
type Config struct {
	AllowHTTP bool
	// AllowUnderscoreHosts lets host names have underscores, as in a_b.example.com.
	AllowUnderscoreHosts bool
	// AllowPrivate opens ranges that are not public, on any port. Link-local and
	// metadata addresses only open as /32 or /128.
	AllowPrivate []netip.Prefix
	// Own returns the addresses that this process listens on; they are never
	// dialled. One without an address (0.0.0.0, ::) stands for all of the
	// machine's. nil: none. It is called at each dial, concurrently.
	Own func() []netip.AddrPort
	// OwnAllowed are the exceptions to Own and to everything else: the inbox of
	// "posthorn dev".
	OwnAllowed []netip.AddrPort
	// Proxy (http or https, with a user and password if it asks for them) is
	// asked by CONNECT for every attempt; it must refuse private addresses
	// itself, for only it sees them. nil: none. HTTP_PROXY is never read.
	Proxy *url.URL
	// CAs verify receivers and the proxy, until [Client.Trust] names others. nil: the
	// system's.
	CAs *x509.CertPool
	// Resolver looks names up. nil: Go's own resolver with the system's servers,
	// which unlike the C library takes no odd notation for an address.
	Resolver *net.Resolver
	// Dial replaces resolving and dialling, for a network in memory; it gets
	// "tcp" and the host and port of the URL. Addresses in the URL are judged
	// all the same. nil: the guarded dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// UserAgent is sent with every request. "": "Posthorn/" and the version.
	UserAgent string
	// Now dates attempts; nil is time.Now. Time limits follow the runtime's clock.
	Now func() time.Time
	// Wall is what receivers compare with theirs: it dates signatures and reads the
	// dates in Retry-After. nil: Now.
	Wall func() time.Time
	// Log gets what tenants must not see, such as addresses. nil: nothing.
	Log *slog.Logger
}

// Request is one attempt to be made.
type Request struct {
	URL string
	// Signers sign, the current key's first; there must be one.
	Signers []*webhook.Signer
	// Headers are sent before our own. Names that belong to the protocol, to us
	// or to signatures are left out.
	Headers []posthorn.Header
	// EventRef is the webhook-id.
	EventRef, EventType string
	Delivery            posthorn.ID
	Attempt             int
	Test                bool
	Body                []byte
	// Timeout bounds all of it: look-up, dial, TLS, the answer's headers, and
	// what is read of its body. 0: posthorn.DefaultTimeout.
	Timeout time.Duration
	// Gate has the last word; nil: the request goes out.
	Gate Gate
	// Tenant is whose connections to one address are counted together.
	Tenant int64
	// Endpoint is the key of the connection pool: no connection is shared
	// between two endpoints.
	Endpoint int64
}

// Gate is asked right before a connection is made, and before the first byte of the
// request is written, with nothing between the two that could wait.
type Gate interface {
	// Enter reports whether the request may go out. If so, Leave is called once its
	// first bytes were handed to the system. If not, nothing is written and
	// [Client.Send] returns at once.
	Enter() bool
	Leave()
	// First reports whether no other attempt of the endpoint was under way when this one
	// started. A part of the tenant's connections to an address is kept for those.
	First() bool
	// Crowded is called when the tenant has as many connections to the address as it
	// may. Nothing was written, and [Client.Send] returns at once.
	Crowded()
}

// Client makes attempts. It is safe for concurrent use, and starts no attempt
// of its own accord.
type Client struct {
	guard    Guard
	targets  targets
	dial     func(ctx context.Context, network, addr string) (net.Conn, error)
	dialOne  func(ctx context.Context, a netip.AddrPort) (net.Conn, error)
	proxy    *proxy
	routes   routes
	outage   outage
	resolver *net.Resolver
	// search lets names be completed by the machine's search domains. That is for
	// private names; a public one must not turn into a private one, nor cost a
	// question for each domain.
	search    bool
	tls       atomic.Pointer[tls.Config]
	pool      pool
	userAgent string
	now, wall func() time.Time
	log       *slog.Logger
}

// New returns a client. The error names the setting that is wrong.
func New(c Config) (*Client, error) {
	if err := checkAllowed(c.AllowPrivate); err != nil {
		return nil, err
	}
	client := &Client{
		guard: NewGuard(c), dial: c.Dial, routes: systemRoutes(), resolver: c.Resolver, search: len(c.AllowPrivate) > 0,
		userAgent: c.UserAgent, now: c.Now, wall: c.Wall, log: c.Log,
	}
	client.dialOne = client.dialGuarded
	client.tls.Store(trusting(c.CAs))
	if c.Proxy != nil {
		p, err := newProxy(c.Proxy)
		if err != nil {
			return nil, err
		}
		client.proxy = p
	}
	if client.resolver == nil {
		client.resolver = &net.Resolver{PreferGo: true}
	}
	if client.userAgent == "" {
		client.userAgent = "Posthorn/" + posthorn.Version
	}
	if !posthorn.ValidHeaderValue(client.userAgent) {
		return nil, fmt.Errorf("the user agent %q holds a control character", client.userAgent)
	}
	if client.now == nil {
		client.now = time.Now
	}
	if client.wall == nil {
		client.wall = client.now
	}
	if client.log == nil {
		client.log = slog.New(slog.DiscardHandler)
	}
	return client, nil
}

// Send makes one attempt: at most one request goes out, and at most once. It
// always returns a result; when ctx ends before the answer's headers are there, or
// the gate is shut, the class is local. The body must not change until Send returns.
func (c *Client) Send(ctx context.Context, r Request) posthorn.Attempt {
	if r.Timeout <= 0 {
		r.Timeout = posthorn.DefaultTimeout
	}
	x := &exchange{client: c, request: r, began: time.Now()}
	x.attempt = posthorn.Attempt{Number: r.Attempt, At: c.now()}
	x.deadline = x.began.Add(r.Timeout)
	switch err := x.run(ctx); {
	case err == nil:
	case errors.Is(err, errCrowded) && r.Gate != nil:
		r.Gate.Crowded()
		fallthrough
	case errors.Is(err, errShut):
		x.attempt.Class, x.attempt.Duration = posthorn.ClassLocal, time.Since(x.began)
		x.attempt.Detail = "the attempt was not begun: something changed before"
	default:
		x.fail(ctx, err)
	}
	return x.attempt
}

// Trust has receivers and the proxy verified by other authorities from now on; nil
// stands for the system's. Connections that were made by former ones are not used
// again, and no handshake of theirs is taken up again; attempts in flight go on.
func (c *Client) Trust(cas *x509.CertPool) {
	c.tls.Store(trusting(cas))
	c.pool.forgetAll()
}

func trusting(cas *x509.CertPool) *tls.Config {
	return &tls.Config{
		RootCAs: cas, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		// A handshake taken up again saves both sides the certificates.
		ClientSessionCache: tls.NewLRUClientSessionCache(512),
	}
}

// Forget closes the idle connections of an endpoint: one that was deleted,
// paused, or whose URL changed. Attempts in flight go on; a connection that one
// of them leaves is never used for another origin and closes when it has been
// idle for a while.
func (c *Client) Forget(endpoint int64) { c.pool.forget(endpoint) }

// Close closes the idle connections and waits for what watches them. Attempts
// may still be in flight; their connections are closed as they end.
func (c *Client) Close() { c.pool.close() }

// errNoKey is a fault of our own: an endpoint always has a secret.
var errNoKey = errors.New("there is no key to sign with")
