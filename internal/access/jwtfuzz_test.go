package access_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/idp"
)

// FuzzClaims lets the provider sign anything: whatever it says, nobody becomes the
// platform, another tenant or an administrator, and the actor can be stored.
func FuzzClaims(f *testing.F) {
	key := idp.NewKey("k1", "EdDSA")
	p := idp.Start(key)
	f.Cleanup(p.Close)
	w := &jwtWorld{world: newWorld(), p: p}
	oidc, err := access.NewOIDC(w.config())
	if err != nil {
		f.Fatal(err)
	}
	if err := oidc.Probe(f.Context()); err != nil {
		f.Fatal(err)
	}
	head := `{"iss":"ISSUER","aud":["posthorn"],"exp":1777464300,`
	for _, claims := range []string{
		head + `"sub":"a","https://acme.example/tenant":"acme","scope":"webhooks:read admin"}`,
		head + `"sub":"a\u0000","https://acme.example/tenant":"acme","scope":["root","webhooks:write",7]}`,
		head + `"sub":7,"https://acme.example/tenant":{"acme":1}}`,
		head + `"sub":"a","nbf":-1e400,"iat":"x"}`,
		`{"iss":"ISSUER","iss":"ISSUER"}`, `[]`, `null`, `{`,
	} {
		f.Add([]byte(claims))
	}
	f.Fuzz(func(t *testing.T, claims []byte) {
		claims = []byte(strings.ReplaceAll(string(claims), "ISSUER", p.URL))
		token := idp.Assemble(map[string]any{"alg": "EdDSA", "kid": "k1"}, claims, key.Signature)
		auth := access.New(access.Config{Store: w.store, Now: w.clock, OIDC: oidc})
		who, err := auth.Authenticate(t.Context(), []string{"Bearer " + token}, netip.Addr{})
		if err != nil {
			if c := posthorn.ErrorCode(err); c != posthorn.Unauthorized && c != posthorn.Forbidden {
				t.Fatalf("%v for %s", err, claims)
			}
			return
		}
		if who.Platform || who.Tenant.Name != "acme" || who.Has(access.ScopeAdmin) {
			t.Errorf("%+v by %s", who, claims)
		}
		if strings.ContainsFunc(who.Actor, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(who.Actor) > 4*255+100 {
			t.Errorf("the actor is %q", who.Actor)
		}
	})
}

func TestTheTokensOfOneSubjectShareItsRate(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	w.Authenticator = access.New(access.Config{Store: w.store, Now: w.clock, OIDC: w.oidc, RatePerSecond: 2})
	of := func(sub string, n int) string {
		return "Bearer " + w.p.Token(w.claims(map[string]any{"sub": sub, "jti": n}))
	}
	for i := range 2 {
		if _, fault := w.try(t, local, of("a", i)); fault != nil {
			t.Fatal(fault)
		}
	}
	if _, fault := w.try(t, local, of("a", 3)); fault == nil || fault.Code != posthorn.RateLimited {
		t.Errorf("a new token is a new rate: %v", fault)
	}
	if _, fault := w.try(t, local, of("b", 4)); fault != nil {
		t.Errorf("somebody else waits: %v", fault)
	}
}
