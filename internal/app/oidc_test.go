package app

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/idp"
)

func status(err error) int {
	if e, ok := errors.AsType[*client.Error](err); ok {
		return e.Status
	}
	return 0
}

// fetchToken gets a token from the provider's token endpoint, as a program does.
func fetchToken(t *testing.T, p *idp.Provider, id, secret, scope string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {"posthorn"}, "scope": {scope}}
	req, err := http.NewRequest("POST", p.URL+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth(id, secret)
	resp, err := p.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var got struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&got); err != nil || got.Token == "" {
		t.Fatalf("the provider answers %s, %v", resp.Status, err)
	}
	return got.Token
}

func TestServeTakesTheTokensOfAnIdentityProvider(t *testing.T) {
	p := idp.Start(idp.NewKey("k1", "ES256"))
	defer p.Close()
	p.Register("acme-portal", "s3cret", map[string]any{"org": map[string]any{"name": "acme"}})
	p.Register("lost", "s3cret", nil)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, p.CAFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	p.SetDown(true) // it does not keep the service from starting
	s := serveForTest(t, "POSTHORN_OIDC_ISSUER="+p.URL, "POSTHORN_OIDC_AUDIENCE=posthorn", "POSTHORN_OIDC_CA="+ca,
		"POSTHORN_OIDC_TENANT_CLAIM=org.name", "POSTHORN_OIDC_SCOPE_MAP=edit=webhooks:write")
	own := s.tenant(t, "acme")
	for _, err := range own.Endpoints(t.Context()) {
		if err != nil {
			t.Errorf("tokens of ours need no provider: %v", err)
		}
	}
	eventually(t, "the trouble in readiness", func() bool {
		status, text := get(t, s.base+"/readyz")
		return status == 200 && strings.Contains(text, "ready; but the keys of "+p.URL)
	})
	eventually(t, "the trouble in the log", func() bool { return strings.Contains(s.log.String(), "cannot be fetched") })

	p.SetDown(false)
	eventually(t, "recovery", func() bool {
		_, text := get(t, s.base+"/readyz")
		return strings.TrimSpace(text) == "ready"
	})
	token := fetchToken(t, p, "acme-portal", "s3cret", "webhooks:read edit")
	jwt, err := client.New(client.Config{Server: s.base, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	e, err := jwt.CreateEndpoint(t.Context(), client.NewEndpoint{URL: "http://127.0.0.1:9/", Events: []string{"cases.*"}})
	if err != nil {
		t.Fatal(err)
	}
	var actors []string
	for entry, err := range own.Audit(t.Context(), client.AuditFilter{Subject: e.ID}) {
		if err != nil {
			t.Fatal(err)
		}
		actors = append(actors, entry.Actor)
	}
	if len(actors) != 1 || actors[0] != "jwt:acme-portal@"+p.URL {
		t.Errorf("the audit names %v", actors)
	}
	if _, err := jwt.Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(`{}`)}); status(err) != 403 {
		t.Errorf("a scope that it lacks: %v", err)
	}
	if _, err := jwt.PauseSending(t.Context()); status(err) != 403 {
		t.Errorf("the platform's: %v", err)
	}
	lost, err := client.New(client.Config{Server: s.base, Token: fetchToken(t, p, "lost", "s3cret", "webhooks:read")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lost.CreateEndpoint(t.Context(), client.NewEndpoint{URL: "http://127.0.0.1:9/", Events: []string{"cases.*"}}); status(err) != 403 {
		t.Errorf("no tenant: %v", err)
	}
	for _, secret := range []string{token, strings.Split(token, ".")[2], "acme-portal"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log has %q", secret)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
}
