package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// OIDCConfig says whose JWTs are taken as bearer tokens, and what they say.
type OIDCConfig struct {
	// Issuers are the identity providers, as their tokens' iss names them: https,
	// or http on loopback.
	Issuers []string
	// Audiences: a token must be meant for one of them.
	Audiences []string
	// JWKSURL is where the keys are, instead of what discovery says; only with one
	// issuer.
	JWKSURL string
	// TenantClaim and ScopeClaim name claims, or paths to nested ones by dots.
	TenantClaim, ScopeClaim string
	// ScopeMap turns what ScopeClaim holds into scopes; a value that is not in it
	// stands for itself.
	ScopeMap map[string]string
	// CAs are the authorities that the providers' certificates may have, until
	// [OIDC.Trust] names others; nil for the system's.
	CAs *x509.CertPool
	Now func() time.Time
	Log *slog.Logger
}

// OIDC checks JWTs of identity providers. It is safe for concurrent use.
//
// A JWT cannot be revoked here: it is good until its exp, until the provider takes
// its key away, or until its tenant is deleted. Providers should issue short ones.
type OIDC struct {
	OIDCConfig
	providers map[string]*provider // by issuer
	way       *bounded
}

// What is fetched from a provider is small and soon there.
const (
	providerTimeout = 10 * time.Second
	maxDocument     = 256 << 10
)

// NewOIDC makes no request: the providers' keys are fetched by Run, and when a
// token comes that needs them.
func NewOIDC(c OIDCConfig) (*OIDC, error) {
	switch {
	case len(c.Issuers) == 0:
		return nil, errors.New("access: no issuer is named")
	case len(c.Audiences) == 0:
		return nil, errors.New("access: no audience is named: a token that was made for another service would be taken")
	case c.JWKSURL != "" && len(c.Issuers) > 1:
		return nil, errors.New("access: one place of keys cannot serve several issuers")
	case c.TenantClaim == "" || c.ScopeClaim == "":
		return nil, errors.New("access: the claims of tenant and scopes must be named")
	}
	if c.JWKSURL != "" {
		if err := CheckProviderURL(c.JWKSURL); err != nil {
			return nil, err
		}
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	o := &OIDC{OIDCConfig: c, providers: map[string]*provider{}, way: &bounded{}}
	o.way.Store(transport(c.CAs))
	client := providerClient(o.way)
	for _, issuer := range c.Issuers {
		if err := CheckProviderURL(issuer); err != nil {
			return nil, err
		}
		o.providers[issuer] = newProvider(issuer, c.JWKSURL, client, c.Now, c.Log)
	}
	return o, nil
}

// CheckProviderURL refuses a URL that keys should not come from: whoever can change
// the answer on its way can make tokens.
func CheckProviderURL(raw string) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil, u.Hostname() == "", u.User != nil, u.Fragment != "":
		return errors.New("an identity provider's URL is written https://HOST/PATH")
	case u.Scheme == "https":
		return nil
	case u.Scheme != "http":
		return errors.New("an identity provider's URL is written https://HOST/PATH")
	}
	if a, err := netip.ParseAddr(u.Hostname()); u.Hostname() == "localhost" || err == nil && a.IsLoopback() {
		return nil
	}
	return errors.New("an identity provider's URL must be https, unless it is on loopback: who changes its keys on their way makes tokens")
}

// providerClient fetches from providers: directly, a little, and from nowhere that
// an answer points to.
func providerClient(way *bounded) *http.Client {
	return &http.Client{
		Timeout:   providerTimeout,
		Transport: way,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it redirects elsewhere, which is not followed")
		},
	}
}

func transport(cas *x509.CertPool) *http.Transport {
	return &http.Transport{
		TLSClientConfig:        &tls.Config{RootCAs: cas, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        time.Minute,
		MaxResponseHeaderBytes: 64 << 10,
	}
}

// Trust has the providers verified by other authorities from now on; nil stands for
// the system's. Connections that were made by former ones are not used again. The
// keys are fetched at once, as that may have failed for want of an authority; they
// stay as they were until that succeeds.
func (o *OIDC) Trust(cas *x509.CertPool) {
	o.way.Swap(transport(cas)).CloseIdleConnections()
	for _, p := range o.providers {
		p.begin(true)
	}
}

// bounded refuses long answers.
type bounded struct {
	atomic.Pointer[http.Transport]
}

func (b *bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := b.Load().RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = http.MaxBytesReader(nil, resp.Body, maxDocument)
	return resp, nil
}

// Run keeps the providers' keys fresh until ctx ends. onChange is called when keys
// that were good are so no more: what was remembered of tokens must be forgotten.
func (o *OIDC) Run(ctx context.Context, onChange func()) {
	done := make(chan struct{})
	for _, p := range o.providers {
		go func() {
			defer func() { done <- struct{}{} }()
			p.run(ctx, onChange)
		}()
	}
	for range o.providers {
		<-done
	}
}

// Trouble says which providers' tokens cannot be checked because their keys were
// never fetched; nil if there are none.
func (o *OIDC) Trouble() error {
	var all []string
	for issuer, p := range o.providers {
		if !p.ready() {
			all = append(all, issuer)
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return fmt.Errorf("the keys of %s could not be fetched yet; its tokens are answered 503", strings.Join(all, ", "))
}

// Probe fetches the keys of all providers now and returns what is wrong, joined.
func (o *OIDC) Probe(ctx context.Context) error {
	var faults []error
	for _, issuer := range slices.Sorted(maps.Keys(o.providers)) {
		if err := o.providers[issuer].fetch(ctx); err != nil {
			faults = append(faults, err)
		}
	}
	return errors.Join(faults...)
}
