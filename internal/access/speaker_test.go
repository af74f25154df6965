package access_test

import (
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/tally"
)

// What is counted for whoever a JWT speaks for is counted for a tenant's: the same
// subject elsewhere has a bucket and a reference of its own, whatever the subject says,
// and two tokens of one speaker share them.
func TestWhoJWTsSpeakForIsToldApartByTenantAndIssuer(t *testing.T) {
	w := newJWTWorld(t, idp.NewKey("k1", "EdDSA"))
	second := idp.Start(idp.NewKey("k1", "EdDSA"))
	t.Cleanup(second.Close)
	w.store.tenants[8] = posthorn.Tenant{ID: 8, Name: "globex"}
	w.store.tenants[70] = posthorn.Tenant{ID: 70, Name: "acme0"}
	c := w.config()
	c.Issuers = append(c.Issuers, second.URL)
	w.connect(t, c)
	token := func(p *idp.Provider, tenant, sub string, more map[string]any) string {
		claims := w.claims(map[string]any{"iss": p.URL, "sub": sub, "https://acme.example/tenant": tenant})
		for name, v := range more {
			claims[name] = v
		}
		return p.Token(claims)
	}
	type speaker struct {
		p           *idp.Provider
		tenant, sub string
	}
	for name, tc := range map[string]struct {
		first, other speaker
		more         map[string]any
		same         bool
	}{
		"the subject in another tenant":               {speaker{w.p, "acme", "user-1"}, speaker{w.p, "globex", "user-1"}, nil, false},
		"a tenant whose number begins alike":          {speaker{w.p, "acme", "0"}, speaker{w.p, "acme0", "0"}, nil, false},
		"a subject that names another tenant":         {speaker{w.p, "acme", "user-1"}, speaker{w.p, "globex", "7\x00" + w.p.URL + "\x00user-1"}, nil, false},
		"another tenant's client of the same name":    {speaker{w.p, "acme", "publisher"}, speaker{w.p, "globex", "publisher"}, map[string]any{"azp": "publisher"}, false},
		"the subject of another issuer":               {speaker{w.p, "acme", "user-1"}, speaker{second, "acme", "user-1"}, nil, false},
		"another issuer and another tenant":           {speaker{w.p, "acme", "user-1"}, speaker{second, "globex", "user-1"}, nil, false},
		"subjects that differ in what is not printed": {speaker{w.p, "acme", "a\u202eb"}, speaker{w.p, "acme", "a\u202db"}, nil, false},
		"another token of the same":                   {speaker{w.p, "acme", "user-1"}, speaker{w.p, "acme", "user-1"}, map[string]any{"jti": "2"}, true},
		"another token with other scopes":             {speaker{w.p, "acme", "user-1"}, speaker{w.p, "acme", "user-1"}, map[string]any{"scope": "events:publish"}, true},
	} {
		w.Authenticator = access.New(access.Config{Store: w.store, Now: w.clock, OIDC: w.oidc, RatePerSecond: 3})
		a, b := token(tc.first.p, tc.first.tenant, tc.first.sub, nil), token(tc.other.p, tc.other.tenant, tc.other.sub, tc.more)
		var one *access.Principal
		for {
			p, fault := w.try(t, local, "Bearer "+a)
			if fault != nil && fault.Code != posthorn.RateLimited {
				t.Fatalf("%s: %v", name, fault)
			}
			if fault != nil {
				break
			}
			one = p
		}
		two, fault := w.try(t, local, "Bearer "+b)
		if limited := fault != nil && fault.Code == posthorn.RateLimited; limited != tc.same {
			t.Errorf("%s: %v", name, fault)
		}
		if tc.same {
			w.pass(time.Second)
			two, fault = w.try(t, local, "Bearer "+b)
		}
		if fault != nil {
			t.Errorf("%s: %v", name, fault)
			continue
		}
		if (one.TokenRef == two.TokenRef) != tc.same {
			t.Errorf("%s: the references are %s and %s", name, one.TokenRef, two.TokenRef)
		}
	}
	tally.Count(t, "what is counted for a tenant's user is counted for nobody else's", 9)
}
