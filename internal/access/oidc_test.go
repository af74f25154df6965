package access_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/store"
)

// jwtWorld is an authenticator that takes the JWTs of a running provider.
type jwtWorld struct {
	*world
	p    *idp.Provider
	oidc *access.OIDC
	mu   sync.Mutex // for now
}

func newJWTWorld(t *testing.T, keys ...idp.Key) *jwtWorld {
	t.Helper()
	w := &jwtWorld{world: newWorld(), p: idp.Start(keys...)}
	t.Cleanup(w.p.Close)
	w.connect(t, w.config())
	return w
}

func (w *jwtWorld) config() access.OIDCConfig {
	return access.OIDCConfig{
		Issuers: []string{w.p.URL}, Audiences: []string{"posthorn", "hooks"}, CAs: w.p.CAs(), Now: w.clock,
		TenantClaim: "https://acme.example/tenant", ScopeClaim: "scope",
		ScopeMap: map[string]string{"hooks-editor": access.ScopeWrite, "root": access.ScopeAdmin},
	}
}

func (w *jwtWorld) connect(t *testing.T, c access.OIDCConfig) {
	t.Helper()
	var err error
	if w.oidc, err = access.NewOIDC(c); err != nil {
		t.Fatal(err)
	}
	w.oidc.Patient()
	w.Authenticator = access.New(access.Config{Store: w.store, Now: w.clock, OIDC: w.oidc})
}

func (w *jwtWorld) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

func (w *jwtWorld) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

// claims are good ones, with changes; a nil value takes a claim away.
func (w *jwtWorld) claims(changes map[string]any) map[string]any {
	c := w.p.Claims(w.clock(), "posthorn", map[string]any{"https://acme.example/tenant": "acme", "scope": "openid webhooks:read hooks-editor"})
	maps.Copy(c, changes)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func TestJWTsOfEachKindOfKeyAreTaken(t *testing.T) {
	for _, alg := range []string{"RS256", "ES256", "EdDSA"} {
		w := newJWTWorld(t, idp.NewKey("k1", alg))
		c := w.claims(nil)
		got, fault := w.try(t, local, "Bearer "+w.p.Token(c))
		if fault != nil {
			t.Fatalf("%s: %v", alg, fault)
		}
		want := &access.Principal{
			Tenant: posthorn.Tenant{ID: 7, Name: "acme"}, Scopes: []string{"webhooks:read", "webhooks:write"},
			ExpiresAt: noon.Add(5 * time.Minute), Actor: "jwt:user-1@" + w.p.URL, TokenRef: got.TokenRef,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", alg, diff)
		}
		if len(got.TokenRef) != 20 || !strings.HasPrefix(got.TokenRef, "jwt_") || strings.Contains(got.TokenRef, "user") {
			t.Errorf("the reference is %q", got.TokenRef)
		}
	}
}

func TestJWTsThatAreNotTaken(t *testing.T) {
	key, other := idp.NewKey("k1", "RS256"), idp.NewKey("k1", "RS256")
	w := newJWTWorld(t, key)
	good := w.claims(nil)
	at := func(d time.Duration) int64 { return noon.Add(d).Unix() }
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	hs256 := func(secret []byte) string {
		return idp.Assemble(map[string]any{"alg": "HS256", "typ": "JWT", "kid": "k1"}, good, func(in []byte) []byte {
			mac := hmac.New(sha256.New, secret)
			mac.Write(in)
			return mac.Sum(nil)
		})
	}
	unsigned := func([]byte) []byte { return nil }
	signed := w.p.Token(good)
	parts := strings.Split(signed, ".")
	changed := idp.Assemble(map[string]any{}, w.claims(map[string]any{"scope": "events:publish"}), unsigned)
	for name, c := range map[string]struct {
		token, says string
	}{
		"signed by another key of the same id": {other.Sign(good), "signed"},
		"claims changed":                       {parts[0] + "." + strings.Split(changed, ".")[1] + "." + parts[2], "signed"},
		"algorithm none":                       {idp.Assemble(map[string]any{"alg": "none"}, good, unsigned), "signed"},
		"no signature":                         {parts[0] + "." + parts[1] + ".", "signed"},
		"HS256 with the public key, DER":       {hs256(der), "signed"},
		"HS256 with the public key, PEM":       {hs256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "signed"},
		"a header that must be understood":     {idp.Assemble(map[string]any{"alg": "RS256", "kid": "k1", "crit": []string{"x"}, "x": 1}, good, unsigned), "signed"},
		"another issuer":                       {w.p.Token(w.claims(map[string]any{"iss": "https://evil.example"})), "(iss)"},
		"the issuer with a slash":              {w.p.Token(w.claims(map[string]any{"iss": w.p.URL + "/"})), "(iss)"},
		"no issuer":                            {w.p.Token(w.claims(map[string]any{"iss": nil})), "(iss)"},
		"another audience":                     {w.p.Token(w.claims(map[string]any{"aud": "billing"})), "aud"},
		"no audience":                          {w.p.Token(w.claims(map[string]any{"aud": nil})), "aud"},
		"expired":                              {w.p.Token(w.claims(map[string]any{"exp": at(-access.Leeway)})), "expired"},
		"never ends":                           {w.p.Token(w.claims(map[string]any{"exp": nil})), "never ends"},
		"an end that is text":                  {w.p.Token(w.claims(map[string]any{"exp": "tomorrow"})), ""},
		"not yet valid":                        {w.p.Token(w.claims(map[string]any{"nbf": at(access.Leeway + time.Second)})), "not valid yet"},
		"issued later":                         {w.p.Token(w.claims(map[string]any{"iat": at(access.Leeway + time.Second)})), "not valid yet"},
		"nobody":                               {w.p.Token(w.claims(map[string]any{"sub": nil})), "sub"},
		"no JSON":                              {idp.Assemble(map[string]any{"alg": "RS256"}, []byte("no"), unsigned), "well-formed"},
		"an issuer twice": {idp.Assemble(map[string]any{"alg": "RS256", "kid": "k1"},
			fmt.Appendf(nil, `{"iss":"https://evil.example","iss":%q}`, w.p.URL), unsigned), "well-formed"},
		"far too long": {"eyJ" + strings.Repeat("x", 20_000) + "." + parts[1] + "." + parts[2], "too long"},
	} {
		from := netip.AddrFrom4([4]byte{10, 0, 0, byte(len(name))})
		p, fault := w.try(t, from, "Bearer "+c.token)
		if fault == nil || fault.Code != posthorn.Unauthorized || !strings.Contains(fault.Message, c.says) {
			t.Errorf("%s: %+v, %v", name, p, fault)
		}
	}
	if _, fault := w.try(t, local, "Bearer "+signed); fault != nil {
		t.Errorf("the good one is not taken: %v", fault)
	}
}

func TestWithoutOIDCAJWTIsNoToken(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	w.Authenticator = access.New(access.Config{Store: w.store, Now: w.clock})
	if _, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(nil))); fault == nil || fault.Code != posthorn.Unauthorized {
		t.Errorf("%v", fault)
	}
}

func TestAJWTWithoutATenantOfOursIsForbiddenAndNeverThePlatforms(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "ES256"))
	for name, tenant := range map[string]any{
		"none": nil, "unknown": "globex", "empty": "", "a list": []string{"acme"}, "a number": 7, "no name": "../acme", "NUL": "ac\x00me",
	} {
		_, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(map[string]any{"https://acme.example/tenant": tenant, "scope": "admin root"})))
		if fault == nil || fault.Code != posthorn.Forbidden {
			t.Errorf("%s: %v", name, fault)
		}
	}
	p, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(map[string]any{"scope": "admin root webhooks:read"})))
	if fault != nil || p.Platform || p.Has(access.ScopeAdmin) || !p.Has(access.ScopeRead) {
		t.Errorf("%+v, %v", p, fault)
	}
}

func TestScopesComeAsTheProviderSpellsThem(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	c := w.config()
	c.ScopeClaim = "resource_access.posthorn.roles"
	w.connect(t, c)
	for name, tc := range map[string]struct {
		claims map[string]any
		want   string
	}{
		"nested list": {map[string]any{"resource_access": map[string]any{"posthorn": map[string]any{"roles": []string{"hooks-editor", "x"}}}}, "webhooks:write"},
		"by its name": {map[string]any{"resource_access.posthorn.roles": "events:publish webhooks:read webhooks:read"}, "events:publish webhooks:read"},
		"elsewhere":   {map[string]any{"scope": "webhooks:read"}, ""},
		"no text":     {map[string]any{"resource_access": 7}, ""},
	} {
		p, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(tc.claims)))
		if fault != nil || strings.Join(p.Scopes, " ") != tc.want {
			t.Errorf("%s: %+v, %v; want %q", name, p, fault, tc.want)
		}
	}
}

func TestSubjectsInTheAuditAreClean(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	for sub, want := range map[string]string{
		"auth0|ab\x00c\n\u202e":   "auth0|ab?c??",
		strings.Repeat("ü", 4000): strings.Repeat("ü", 255),
	} {
		p, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(map[string]any{"sub": sub})))
		if fault != nil || p.Actor != "jwt:"+want+"@"+w.p.URL {
			t.Errorf("%.20q: %.300s, %v", sub, p.Actor, fault)
		}
	}
}

func TestKeysAreRotatedByTheProvider(t *testing.T) {
	k1, k2 := idp.NewKey("k1", "RS256"), idp.NewKey("k2", "ES256")
	w := newJWTWorld(t, k1)
	old := w.p.Token(w.claims(nil))
	if _, fault := w.try(t, local, "Bearer "+old); fault != nil {
		t.Fatal(fault)
	}
	w.p.SetKeys(k2, k1)
	w.pass(time.Minute)
	for _, token := range []string{old, w.p.Token(w.claims(nil)), old} {
		if _, fault := w.try(t, local, "Bearer "+token); fault != nil {
			t.Errorf("while both are there: %v", fault)
		}
	}
	if n := w.p.Fetches(); n != 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
	// A key that the provider takes away is worth nothing from the next fetch on,
	// remembered tokens included.
	changed := 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.oidc.Run(t.Context(), func() { changed++; w.ForgetJWTs() })
	}()
	for w.p.Fetches() < 3 { // until Run has begun
		runtime.Gosched()
	}
	w.p.SetKeys(k2)
	if err := w.oidc.Probe(t.Context()); err != nil { // waits for Run's first fetch or makes one
		t.Fatal(err)
	}
	if err := w.oidc.Probe(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, fault := w.try(t, local, "Bearer "+old); fault == nil || fault.Code != posthorn.Unauthorized {
		t.Errorf("its key is gone: %v", fault)
	}
	if _, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(nil))); fault != nil {
		t.Error(fault)
	}
}

func TestUnknownKeysDoNotHammerTheProvider(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	forged := idp.NewKey("k2", "EdDSA")
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			k := forged
			k.ID = fmt.Sprint("made-up-", i)
			from := netip.AddrFrom4([4]byte{10, 1, byte(i), 1})
			if _, err := w.Authenticate(t.Context(), []string{"Bearer " + k.Sign(w.claims(nil))}, from); posthorn.ErrorCode(err) != posthorn.Unauthorized {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if n := w.p.Fetches(); n != 1 {
		t.Errorf("200 unknown keys made for %d fetches", n)
	}
	w.pass(11 * time.Second)
	for range 5 {
		_, _ = w.try(t, local, "Bearer "+forged.Sign(w.claims(nil)))
	}
	if n := w.p.Fetches(); n != 2 {
		t.Errorf("after a pause: %d fetches", n)
	}
	// A bad signature by a known key is no reason to ask.
	w.pass(time.Minute)
	forged.ID = "k1"
	_, _ = w.try(t, local, "Bearer "+forged.Sign(w.claims(nil)))
	if n := w.p.Fetches(); n != 2 {
		t.Errorf("a forged signature made for a fetch")
	}
}

func TestBadJWTsCountAgainstTheAddress(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	bad := w.p.Token(w.claims(map[string]any{"aud": "billing"}))
	for i := range 20 {
		if _, fault := w.try(t, local, "Bearer "+bad); fault.Code != posthorn.Unauthorized {
			t.Fatalf("failure %d: %v", i+1, fault)
		}
	}
	if _, fault := w.try(t, local, "Bearer "+bad); fault.Code != posthorn.RateLimited {
		t.Errorf("the 21st: %v", fault)
	}
	if _, fault := w.try(t, local, "Bearer "+w.p.Token(w.claims(nil))); fault != nil {
		t.Errorf("a good one from there: %v", fault)
	}
}

func TestWhileTheProviderIsAway(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	w.p.SetDown(true)
	token := "Bearer " + w.p.Token(w.claims(nil))
	opaque := "Bearer " + w.token(store.Token{ID: 3, Ref: "tok_A", Tenant: 7})
	for range 30 { // it is nobody's failure
		if _, fault := w.try(t, local, token); fault == nil || fault.Code != posthorn.Unavailable || fault.RetryAfter <= 0 {
			t.Fatalf("before the keys are known: %v", fault)
		}
	}
	if _, fault := w.try(t, local, opaque); fault != nil {
		t.Errorf("a token of ours: %v", fault)
	}
	if err := w.oidc.Trouble(); err == nil || !strings.Contains(err.Error(), w.p.URL) {
		t.Errorf("trouble: %v", err)
	}
	w.p.SetDown(false)
	w.pass(11 * time.Second)
	if _, fault := w.try(t, local, token); fault != nil {
		t.Fatalf("when it is back: %v", fault)
	}
	if err := w.oidc.Trouble(); err != nil {
		t.Error(err)
	}
	w.p.SetDown(true)
	w.pass(time.Minute)
	if err := w.oidc.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("the probe says %v", err)
	}
	w.ForgetJWTs()
	if _, fault := w.try(t, local, token); fault != nil {
		t.Errorf("the keys that were fetched go on: %v", fault)
	}
}

func TestCheckedJWTsAreRememberedUntilTheyEndOrTheirTenantChanges(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	token := "Bearer " + w.p.Token(w.claims(nil))
	for range 10 {
		if _, fault := w.try(t, local, token); fault != nil {
			t.Fatal(fault)
		}
	}
	if w.store.lookups != 1 {
		t.Errorf("ten requests made for %d look-ups", w.store.lookups)
	}
	w.store.tenants[7] = posthorn.Tenant{ID: 7, Name: "acme", SuspendedAt: noon}
	w.Notice(store.Notice{Kind: store.NoticeTenant, Tenant: 7})
	if p, fault := w.try(t, local, token); fault != nil || !p.Tenant.Suspended() {
		t.Errorf("%+v, %v", p, fault)
	}
	w.pass(5 * time.Minute) // its exp: from here on nothing is remembered
	before := w.store.lookups
	for range 3 {
		if _, fault := w.try(t, local, token); fault != nil {
			t.Errorf("within the leeway: %v", fault)
		}
	}
	if got := w.store.lookups - before; got != 3 {
		t.Errorf("within the leeway %d of 3 were checked", got)
	}
	w.pass(access.Leeway)
	if _, fault := w.try(t, local, token); fault == nil || fault.Code != posthorn.Unauthorized {
		t.Errorf("behind it: %v", fault)
	}
	delete(w.store.tenants, 7)
	w.Notice(store.Notice{Kind: store.NoticeTenant, Tenant: 7})
	fresh := "Bearer " + w.p.Token(w.claims(nil))
	if _, fault := w.try(t, local, fresh); fault == nil || fault.Code != posthorn.Forbidden {
		t.Errorf("a deleted tenant: %v", fault)
	}
	if err := w.Flush(t.Context()); err != nil || len(w.store.touched) != 0 {
		t.Errorf("uses of JWTs are written to the store: %v, %v", w.store.touched, err)
	}
}

func TestProvidersThatCannotBeTrusted(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	for name, url := range map[string]string{
		"plain http": "http://idp.example", "a user": "https://u:p@idp.example", "nothing": "", "no host": "https://", "a file": "file:///etc/keys",
	} {
		c := w.config()
		c.Issuers = []string{url}
		if _, err := access.NewOIDC(c); err == nil {
			t.Errorf("%s is taken as an issuer", name)
		}
		c = w.config()
		if c.JWKSURL = url; url != "" {
			if _, err := access.NewOIDC(c); err == nil {
				t.Errorf("%s is taken as a place of keys", name)
			}
		}
	}
	probe := func(name, want string, change func(*access.OIDCConfig)) {
		c := w.config()
		change(&c)
		w.connect(t, c)
		if err := w.oidc.Probe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	probe("an unknown authority", "certificate", func(c *access.OIDCConfig) { c.CAs = x509.NewCertPool() })
	probe("no key set", "404", func(c *access.OIDCConfig) { c.JWKSURL = w.p.URL + "/nothing" })
	w.p.ChangeDiscovery(func(d map[string]any) { d["jwks_uri"] = "http://idp.example/keys" })
	probe("keys over http", "names no jwks_uri", func(*access.OIDCConfig) {})
	w.p.ChangeDiscovery(func(d map[string]any) { d["issuer"] = "https://evil.example" })
	probe("another issuer", "issuer", func(*access.OIDCConfig) {})
	w.p.ChangeDiscovery(func(d map[string]any) { d["padding"] = strings.Repeat("x", 300<<10) })
	probe("far too much", "too large", func(*access.OIDCConfig) {})
	w.p.ChangeDiscovery(nil)
	w.p.SetKeys(idp.Weak("k1"))
	probe("keys that are too short", "none that signs", func(*access.OIDCConfig) {})
	w.p.SetKeys(idp.NewKey("k1", "RS256"))
	c := w.config()
	c.JWKSURL = w.p.URL + "/keys" // no discovery
	w.connect(t, c)
	if err := w.oidc.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}
