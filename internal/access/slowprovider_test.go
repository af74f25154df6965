package access

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/tally"
)

// slowIssuer is where the provider of these tests is; its connections are pipes.
const slowIssuer = "http://localhost"

// wires is a listener and a network whose connections lead to it, in virtual time.
type wires struct {
	accepted chan net.Conn
	closed   chan struct{}
	cut      bool // connections break off
}

func (w *wires) Accept() (net.Conn, error) {
	select {
	case c := <-w.accepted:
		return c, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

func (w *wires) Close() error   { close(w.closed); return nil }
func (w *wires) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 80} }

func (w *wires) dial(context.Context, string, string) (net.Conn, error) {
	near, far := net.Pipe()
	if w.cut {
		return near, far.Close()
	}
	select {
	case w.accepted <- far:
		return near, nil
	case <-w.closed:
		return nil, net.ErrClosed
	}
}

// slowWorld is an authenticator that has a provider's keys.
type slowWorld struct {
	*Authenticator
	p     *idp.Provider
	wires *wires
	store *few
	known idp.Key
	n     int
}

func newSlowWorld(t *testing.T, fetched bool) *slowWorld {
	w := &slowWorld{known: idp.NewKey("k1", "EdDSA"), store: &few{known: map[[32]byte]bool{}},
		wires: &wires{accepted: make(chan net.Conn), closed: make(chan struct{})}}
	w.p = idp.New(slowIssuer, w.known)
	server := &http.Server{Handler: w.p}
	go server.Serve(w.wires)
	o, err := NewOIDC(OIDCConfig{Issuers: []string{slowIssuer}, Audiences: []string{"posthorn"}, TenantClaim: "tenant", ScopeClaim: "scope", Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DialContext: w.wires.dial, DisableKeepAlives: true}
	way := &bounded{}
	way.Store(transport)
	o.providers[slowIssuer].client.Transport = way
	t.Cleanup(func() {
		o.providers[slowIssuer].end()
		server.Close()
	})
	w.Authenticator = New(Config{Store: w.store, Now: time.Now, OIDC: o})
	if fetched {
		if err := o.Probe(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-time.After(fetchPause)
	}
	return w
}

// claims are good ones of a token that was not seen before.
func (w *slowWorld) claims() map[string]any {
	w.n++
	return w.p.Claims(time.Now(), "posthorn", map[string]any{"tenant": "acme", "jti": fmt.Sprint(w.n)})
}

// forger signs with a key that is not the provider's.
var forger = idp.NewKey("nobody-has-it", "EdDSA")

// strangeTokens are those that nobody vouches for. The ones that name a key, or none,
// that is not among the issuer's may only be judged when it was asked.
func (w *slowWorld) strangeTokens() map[string]struct {
	token string
	asks  bool
} {
	parts := strings.Split(w.known.Sign(w.claims()), ".")
	foreign := w.claims()
	foreign["iss"] = "https://evil.example"
	late := w.claims()
	late["exp"] = 1
	return map[string]struct {
		token string
		asks  bool
	}{
		"an unknown key":                  {forger.Sign(w.claims()), true},
		"an unknown key of another kind":  {idp.NewKey("es", "ES256").Sign(w.claims()), true},
		"no key named":                    {named(forger, "").Sign(w.claims()), true},
		"a key's name with line breaks":   {named(forger, "k1\r\nk2").Sign(w.claims()), true},
		"a key's name of ten thousand":    {named(forger, strings.Repeat("k", 10_000)).Sign(w.claims()), true},
		"a key's name in another case":    {named(forger, "K1").Sign(w.claims()), true},
		"an unknown key and no signature": {idp.Assemble(map[string]any{"alg": "EdDSA", "kid": "x"}, w.claims(), func([]byte) []byte { return nil }), true},
		"a known key, forged":             {named(forger, "k1").Sign(w.claims()), false},
		"an unknown issuer":               {forger.Sign(foreign), false},
		"expired":                         {forger.Sign(late), false},
		"no algorithm":                    {idp.Assemble(map[string]any{"alg": "none", "kid": "x"}, w.claims(), func([]byte) []byte { return nil }), false},
		"a header that is no JSON":        {"eyJ!!." + parts[1] + "." + parts[2], false},
		"claims that are no JSON":         {parts[0] + ".eyJ." + parts[2], false},
	}
}

// try returns what came of a token, and how long it took.
func (w *slowWorld) try(t *testing.T, token string, from netip.Addr) (code posthorn.Code, took time.Duration, err error) {
	began := time.Now()
	_, err = w.Authenticate(t.Context(), []string{"Bearer " + token}, from)
	return posthorn.ErrorCode(err), time.Since(began), err
}

// However slow an issuer is, a token that nobody vouches for waits a second at most,
// and tokens of known keys, and ours, wait for nothing, also behind the address that
// sends such ones.
func TestTokensDoNotWaitForASlowIssuer(t *testing.T) {
	tried := 0
	for name, issuer := range map[string]struct {
		make  func(w *slowWorld)
		fresh bool          // its keys were never fetched
		wait  time.Duration // what a token whose key is unknown waits
		code  posthorn.Code // what it is then
	}{
		"does not answer": {func(w *slowWorld) { w.p.Hold() }, false, fetchWait, posthorn.Unavailable},
		"answers after a while": {func(w *slowWorld) {
			time.AfterFunc(700*time.Millisecond, w.p.Hold())
		}, false, 700 * time.Millisecond, posthorn.Unauthorized},
		"answers too late": {func(w *slowWorld) {
			time.AfterFunc(5*time.Second, w.p.Hold())
		}, false, fetchWait, posthorn.Unavailable},
		"is broken":          {func(w *slowWorld) { w.p.SetDown(true) }, false, 0, posthorn.Unavailable},
		"breaks off":         {func(w *slowWorld) { w.wires.cut = true }, false, 0, posthorn.Unavailable},
		"answers at once":    {func(*slowWorld) {}, false, 0, posthorn.Unauthorized},
		"was never reached":  {func(w *slowWorld) { w.p.Hold() }, true, fetchWait, posthorn.Unavailable},
		"never was anything": {func(w *slowWorld) { w.p.SetDown(true) }, true, 0, posthorn.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSlowWorld(t, !issuer.fresh)
				issuer.make(w)
				var wg sync.WaitGroup
				i := byte(0)
				for what, c := range w.strangeTokens() {
					i++
					from := netip.AddrFrom4([4]byte{10, 0, 0, i})
					tried++
					wg.Go(func() {
						code, took, err := w.try(t, c.token, from)
						want, wait := posthorn.Unauthorized, time.Duration(0)
						if c.asks || issuer.fresh && what == "a known key, forged" {
							want, wait = issuer.code, issuer.wait
						}
						if code != want || took != wait {
							t.Errorf("%s: %v after %v, want %v after %v", what, err, took, want, wait)
						}
						if fault, ok := err.(*posthorn.Error); ok && code == posthorn.Unavailable && fault.RetryAfter < time.Second {
							t.Errorf("%s: it is to be tried again in %v", what, fault.RetryAfter)
						}
					})
				}
				wg.Wait()
			})
		})
	}
	tally.Count(t, "tokens that nobody vouches for wait a second for their issuer at most", tried)
}

// A flood of tokens that nobody vouches for, while their issuer does not answer, keeps
// no good one waiting: not those of known keys that were never seen, not ours, not from
// the flood's own address. Few of the flood wait at a time; the provider is asked once.
func TestAFloodOfStrangeTokensBeforeASlowIssuer(t *testing.T) {
	for name, from := range map[string]func(i int) netip.Addr{
		"from one address":      func(int) netip.Addr { return hostile },
		"from many":             func(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}) },
		"from one IPv6 network": func(i int) netip.Addr { return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSlowWorld(t, true)
				release := w.p.Hold()
				const floods, each = 20, 150
				var wg sync.WaitGroup
				for i := range 16 { // an address that has all of them has overdrawn
					w.strangers.failed(from(i), strangerBurst/8)
				}
				longest := make(chan time.Duration, floods*each)
				for i := range floods * each {
					token := named(forger, fmt.Sprint("made-up-", i)).Sign(w.claims())
					wg.Go(func() {
						code, took, err := w.try(t, token, from(i))
						if code != posthorn.Unavailable && code != posthorn.Unauthorized && code != posthorn.RateLimited {
							t.Errorf("a strange token: %v", err)
						}
						longest <- took
					})
				}
				<-time.After(fetchWait / 2) // the flood waits
				if taken, parties := w.strangers.waiting.Taken(); taken == 0 || taken > maxWaiting || parties == 1 && taken > maxWaitingOfAddress {
					t.Errorf("%d of %d parties wait for the provider", taken, parties)
				}
				for what, c := range map[string]struct {
					token string
					from  netip.Addr
				}{
					"of a known key":                          {w.known.Sign(w.claims()), other},
					"of a known key, from the flood's":        {w.known.Sign(w.claims()), from(0)},
					"of a known key that it does not name":    {named(w.known, "").Sign(w.claims()), other},
					"of ours":                                 {w.store.token()[0][len("Bearer "):], other},
					"of ours, from the flood's":               {w.store.token()[0][len("Bearer "):], from(1)},
					"of a known key, from one of the flood's": {w.known.Sign(w.claims()), from(7)},
				} {
					// The time that failing tokens may take is shared by all: see strangers.
					if _, took, err := w.try(t, c.token, c.from); err != nil || took > 200*time.Millisecond {
						t.Errorf("a good one %s: %v after %v", what, err, took)
					}
				}
				wg.Wait()
				close(longest)
				for took := range longest {
					if took > 4*fetchWait {
						t.Fatalf("a strange one waited %v", took)
					}
				}
				release()
				if taken, parties := w.strangers.waiting.Taken(); taken != 0 || parties != 0 {
					t.Errorf("%d of %d parties wait still", taken, parties)
				}
			})
		})
	}
}

// A token of a key that is new is good as soon as the provider says so, and one whose
// provider is too slow is so when it is tried again as it was told.
func TestANewKeyIsTakenThoughTheIssuerIsSlow(t *testing.T) {
	for name, c := range map[string]struct {
		answers time.Duration
		tries   int
	}{
		"at once": {0, 1}, "within the second": {900 * time.Millisecond, 1}, "later": {2500 * time.Millisecond, 3}, "much later": {9 * time.Second, 10},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newSlowWorld(t, true)
				fresh := idp.NewKey("k2", "EdDSA")
				w.p.SetKeys(fresh, w.known)
				if c.answers > 0 {
					time.AfterFunc(c.answers, w.p.Hold())
				}
				token := fresh.Sign(w.claims())
				began, tries := time.Now(), 0
				for {
					_, err := w.Authenticate(t.Context(), []string{"Bearer " + token}, other)
					if tries++; err == nil {
						break
					}
					fault, ok := err.(*posthorn.Error)
					if !ok || fault.Code != posthorn.Unavailable {
						t.Fatal(err)
					}
					<-time.After(fault.RetryAfter)
				}
				if took := time.Since(began); took > c.answers+fetchWait || tries > c.tries {
					t.Errorf("it was taken after %v and %d tries, want %v and %d at most", took, tries, c.answers+fetchWait, c.tries)
				}
			})
		})
	}
}
