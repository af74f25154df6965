package access

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/store"
)

var (
	hostile = netip.MustParseAddr("192.0.2.1")
	other   = netip.MustParseAddr("192.0.2.2")
)

// few is a store in which few tokens are known. A look takes a while.
type few struct {
	everyone
	takes time.Duration

	mu         sync.Mutex
	known      map[[32]byte]bool
	looks      int
	now, most  int // looks at the same time
	watchStart bool
}

func (s *few) TokenByHash(_ context.Context, hash [32]byte) (store.Token, error) {
	s.mu.Lock()
	s.looks++
	if s.now++; s.watchStart {
		s.most = max(s.most, s.now)
	}
	s.mu.Unlock()
	<-time.After(s.takes)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now--
	if s.known[hash] {
		return store.Token{ID: 1, Hash: hash}, nil
	}
	return store.Token{}, store.ErrNotFound
}

func (s *few) TenantByName(_ context.Context, name string) (posthorn.Tenant, error) {
	return posthorn.Tenant{ID: 7, Name: name}, nil
}

func (s *few) token() (header []string) {
	text, hash := NewToken()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[hash] = true
	return []string{"Bearer " + text}
}

func unknownToken() []string {
	text, _ := NewToken()
	return []string{"Bearer " + text}
}

func TestAnUnknownTokenIsLookedForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &few{known: map[[32]byte]bool{}}
		a := New(Config{Store: s, Now: time.Now})
		bad := unknownToken()
		for range 300 {
			if _, err := a.Authenticate(t.Context(), bad, hostile); err == nil {
				t.Fatal("it is taken")
			}
		}
		if s.looks != 1 {
			t.Errorf("the store was asked %d times", s.looks)
		}
		if time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) != 0 {
			t.Error("what costs nothing waited")
		}
		// It may be there after any change of tokens.
		text := bad[0][len("Bearer "):]
		hash, _ := HashToken(text)
		s.known[hash] = true
		a.Notice(store.Notice{Kind: store.NoticeAll})
		if _, err := a.Authenticate(t.Context(), bad, hostile); err != nil {
			t.Errorf("after a notice: %v", err)
		}
		for range 2 * maxUnknown {
			text, _ := NewToken()
			hash, _ := HashToken(text)
			a.strangers.remember(hash)
		}
		if n := len(a.strangers.unknown); n > maxUnknown {
			t.Errorf("%d hashes are remembered", n)
		}
	})
}

// A notice that comes while the store is asked keeps the answer from being remembered.
func TestAnUnknownTokenIsNotRememberedAcrossANotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &few{known: map[[32]byte]bool{}, takes: time.Second}
		a := New(Config{Store: s, Now: time.Now})
		bad := unknownToken()
		go func() {
			<-time.After(time.Second / 2)
			a.Notice(store.Notice{Kind: store.NoticeAll})
		}()
		for range 2 {
			_, _ = a.Authenticate(t.Context(), bad, hostile)
		}
		if s.looks != 2 {
			t.Errorf("the store was asked %d times, want 2", s.looks)
		}
	})
}

// flood has sixty-four try what make returns, so many in all. It returns how long that
// took.
func flood(t *testing.T, a *Authenticator, from netip.Addr, tokens int, make func() []string) time.Duration {
	began := time.Now()
	work := queued(tokens, make)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for header := range work {
				_, err := a.Authenticate(t.Context(), header, from)
				if code := posthorn.ErrorCode(err); code != posthorn.Unauthorized && code != posthorn.RateLimited {
					t.Errorf("a bad token: %v", err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(began)
}

func queued(n int, one func() []string) chan []string {
	c := make(chan []string, n)
	for range n {
		c <- one()
	}
	close(c)
	return c
}

// lasts is how long so much failing work takes at the least.
func lasts(work time.Duration) time.Duration {
	return time.Duration(float64(work-strangersBurst) / strangersRate)
}

// Unknown tokens of one address have the store asked for one at a time, at a pace.
// Others wait for nothing, and a valid one of that address only for its turn.
func TestUnknownTokensHaveTheirTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &few{known: map[[32]byte]bool{}, takes: time.Millisecond}
		a := New(Config{Store: s, Now: time.Now})
		known := s.token()
		if _, err := a.Authenticate(t.Context(), known, hostile); err != nil {
			t.Fatal(err)
		}
		const tokens = 3000
		done := make(chan time.Duration)
		go func() { done <- flood(t, a, hostile, tokens, unknownToken) }()
		<-time.After(time.Second) // the burst is over
		s.mu.Lock()
		s.watchStart = true
		s.mu.Unlock()
		for _, c := range []struct {
			what   string
			header []string
			from   netip.Addr
			within time.Duration
		}{
			{"a known token of that address", known, hostile, 0},
			{"a new one of another address", s.token(), other, 10 * time.Millisecond},
			{"a new one of that address", s.token(), hostile, time.Second},
		} {
			began := time.Now()
			if _, err := a.Authenticate(t.Context(), c.header, c.from); err != nil {
				t.Errorf("%s is refused: %v", c.what, err)
			}
			if waited := time.Since(began); waited > c.within {
				t.Errorf("%s waited %v, want at most %v", c.what, waited, c.within)
			}
		}
		if took, least := <-done, lasts(tokens*lookWork); took < least*95/100 {
			t.Errorf("%d unknown tokens were looked for in %v, want %v at the least", tokens, took, least)
		}
		if s.most > 2 { // one of that address, and the other's
			t.Errorf("%d were looked for at a time", s.most)
		}
	})
}

// newKnownKeys returns an authenticator that has a provider's keys.
func newKnownKeys(t *testing.T, n int) (a *Authenticator, keys []idp.Key) {
	o, err := NewOIDC(OIDCConfig{
		Issuers: []string{"https://idp.example"}, Audiences: []string{"posthorn"}, TenantClaim: "tenant", ScopeClaim: "scope", Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	p := o.providers["https://idp.example"]
	for i := range n {
		k := idp.NewKey(fmt.Sprint("k", i), "EdDSA")
		keys = append(keys, k)
		p.keys = append(p.keys, jose.JSONWebKey{Key: k.Public(), KeyID: k.ID, Algorithm: "EdDSA"})
	}
	p.fetched = time.Now() // no fetch is due
	return New(Config{Store: &few{known: map[[32]byte]bool{}}, Now: time.Now, OIDC: o}), keys
}

// claimsOf are good ones that differ from each other.
func claimsOf(n int, changes map[string]any) map[string]any {
	c := map[string]any{"iss": "https://idp.example", "aud": "posthorn", "sub": fmt.Sprint(n), "tenant": "acme",
		"exp": time.Now().Add(time.Hour).Unix()}
	for name, v := range changes {
		c[name] = v
	}
	return c
}

// Forged JWTs that name no key have every key tried: eight signatures each.
func TestForgedJWTsHaveTheirTimeAndNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, tokens = 8, 200
		a, k := newKnownKeys(t, keys)
		forger := idp.NewKey("", "EdDSA")
		n := 0
		forged := func() []string {
			n++
			return []string{"Bearer " + forger.Sign(claimsOf(n, nil))}
		}
		done := make(chan time.Duration)
		go func() { done <- flood(t, a, hostile, tokens, forged) }()
		<-time.After(100 * time.Millisecond)
		began := time.Now()
		if _, err := a.Authenticate(t.Context(), []string{"Bearer " + k[3].Sign(claimsOf(0, nil))}, other); err != nil || time.Since(began) > 100*time.Millisecond {
			t.Errorf("a good one from elsewhere, after %v: %v", time.Since(began), err)
		}
		if _, err := a.Authenticate(t.Context(), []string{"Bearer " + k[4].Sign(claimsOf(1, nil))}, hostile); err != nil {
			t.Errorf("a good one from there, after %v: %v", time.Since(began), err)
		}
		work := time.Duration(tokens) * (readWork + keys*signatureWork)
		if took, least := <-done, lasts(work); took < least*95/100 || took > least*11/10 {
			t.Errorf("%d forged tokens took %v, want %v", tokens, took, least)
		}
	})
}

// No signature is tried twice, or at all where the token says itself that it is not good.
func TestSignaturesThatAreTried(t *testing.T) {
	a, k := newKnownKeys(t, 5)
	forger := idp.NewKey("", "EdDSA")
	for name, c := range map[string]struct {
		key    idp.Key
		claims map[string]any
		want   int
	}{
		"forged, no key named":   {forger, claimsOf(1, nil), 5},
		"forged, a known key":    {named(forger, "k2"), claimsOf(1, nil), 1},
		"forged, an unknown key": {named(forger, "k9"), claimsOf(1, nil), 0},
		"expired":                {forger, claimsOf(1, map[string]any{"exp": 1}), 0},
		"for another service":    {forger, claimsOf(1, map[string]any{"aud": []string{"billing"}}), 0},
		"good":                   {k[2], claimsOf(1, nil), 1},
		"good, no key named":     {named(k[2], ""), claimsOf(1, nil), 3},
	} {
		tried := 0
		_, _, err := a.oidc.verify(t.Context(), c.key.Sign(c.claims), time.Now(), &tried)
		if tried != c.want {
			b, _ := json.Marshal(c.claims)
			t.Errorf("%s: %d signatures were tried, want %d (%v; %s)", name, tried, c.want, err, b)
		}
	}
}

func named(k idp.Key, id string) idp.Key {
	k.ID = id
	return k
}
