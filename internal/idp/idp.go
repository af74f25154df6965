// Package idp is an identity provider for tests: OpenID Connect discovery, a key
// set and a token endpoint over TLS, with real keys. It signs with the standard
// library alone, so that it shares no code with what checks its tokens.
package idp

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Provider is one that runs. Its methods may be called concurrently.
type Provider struct {
	// URL is its issuer.
	URL string

	server *httptest.Server

	mu      sync.Mutex
	keys    []Key
	clients map[string]client
	down    bool
	held    chan struct{} // closed when answers go on; nil while they do
	fetches int
	change  func(document map[string]any)
}

type client struct {
	secret string
	claims map[string]any
}

// New makes a provider that has the keys, of which the first one signs. Whoever calls
// it serves it at url.
func New(url string, keys ...Key) *Provider {
	return &Provider{URL: url, keys: keys, clients: map[string]client{}}
}

// Start starts a provider that has the keys; the first one signs.
func Start(keys ...Key) *Provider {
	p := New("", keys...)
	p.server = httptest.NewUnstartedServer(p)
	p.server.Config.ErrorLog = log.New(io.Discard, "", 0) // whoever does not trust it breaks off
	p.server.StartTLS()
	p.URL = p.server.URL
	return p
}

// Close ends it.
func (p *Provider) Close() { p.server.Close() }

// Client is an HTTP client that trusts it.
func (p *Provider) Client() *http.Client { return p.server.Client() }

// CAs are the authorities that its certificate has.
func (p *Provider) CAs() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.server.Certificate())
	return pool
}

// CAFile is CAs as the PEM file that a setting names.
func (p *Provider) CAFile() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
}

// SetKeys changes the keys that it shows and signs with.
func (p *Provider) SetKeys(keys ...Key) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = keys
}

// SetDown has all requests answered 503, or not any more.
func (p *Provider) SetDown(down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = down
}

// Hold keeps all requests without an answer until release is called, which must be done
// once, or until whoever asks goes away.
func (p *Provider) Hold() (release func()) {
	held := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = held
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.held = nil
		close(held)
	}
}

// ChangeDiscovery lets a test spoil the discovery document.
func (p *Provider) ChangeDiscovery(change func(document map[string]any)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.change = change
}

// Fetches is how often the key set was asked for.
func (p *Provider) Fetches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

// Register makes a client that gets tokens with the claims by the grant
// client_credentials.
func (p *Provider) Register(id, secret string, claims map[string]any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clients[id] = client{secret, claims}
}

// Claims are those of a token that is good for five minutes.
func (p *Provider) Claims(now time.Time, audience string, more map[string]any) map[string]any {
	c := map[string]any{
		"iss": p.URL, "sub": "user-1", "aud": audience,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(),
	}
	maps.Copy(c, more)
	return c
}

// Token signs claims with the first key.
func (p *Provider) Token(claims map[string]any) string {
	p.mu.Lock()
	k := p.keys[0]
	p.mu.Unlock()
	return k.Sign(claims)
}

// wait returns when requests are answered, and reports whether somebody waits for it.
func (p *Provider) wait(r *http.Request) bool {
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held == nil {
		return true
	}
	select {
	case <-held:
		return true
	case <-r.Context().Done():
		return false
	}
}

// ServeHTTP implements [http.Handler].
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !p.wait(r) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down {
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /.well-known/openid-configuration":
		doc := map[string]any{
			"issuer": p.URL, "jwks_uri": p.URL + "/keys", "token_endpoint": p.URL + "/token",
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256", "EdDSA"},
		}
		if p.change != nil {
			p.change(doc)
		}
		answer(w, doc)
	case "GET /keys":
		p.fetches++
		set := []any{}
		for _, k := range p.keys {
			set = append(set, k.public())
		}
		answer(w, map[string]any{"keys": set})
	case "POST /token":
		p.grant(w, r)
	default:
		http.NotFound(w, r)
	}
}

// grant is RFC 6749, section 4.4.
func (p *Provider) grant(w http.ResponseWriter, r *http.Request) {
	id, secret, _ := r.BasicAuth()
	c, known := p.clients[id]
	if !known || c.secret != secret || r.FormValue("grant_type") != "client_credentials" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	claims := p.Claims(time.Now(), r.FormValue("audience"), map[string]any{"sub": id, "scope": r.FormValue("scope")})
	maps.Copy(claims, c.claims)
	answer(w, map[string]any{"access_token": p.keys[0].Sign(claims), "token_type": "Bearer", "expires_in": 300})
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client may be gone
}
