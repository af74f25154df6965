package api

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

func TestTenants(t *testing.T) {
	w := newWorld(t)
	got := w.do("platform", "POST", "/tenants", `{"name":"Globex.de_1-x"}`).want(201).hasHeader("Location", "/v2.3/webhooks/tenants/Globex.de_1-x")
	if want := `{"data":{"name":"Globex.de_1-x","created_at":"2026-04-29T09:10:00.000Z","suspended":false}}`; got.body != want {
		t.Errorf("%s, want %s", got.body, want)
	}
	w.do("platform", "GET", "/tenants/Globex.de_1-x", "").want(200).says(got.body)
	w.do("platform", "POST", "/tenants", `{"name":"acme"}`).faults(409)
	for _, body := range []string{`{}`, `{"name":null}`, `{"name":""}`, `{"name":1}`, `{"name":"-x"}`, `{"name":"a b"}`, `{"name":"é"}`, `{"name":"` + strings.Repeat("a", 65) + `"}`} {
		w.do("platform", "POST", "/tenants", body).faults(422, "/name")
	}
	w.do("platform", "POST", "/tenants", `{"name":"x","admin":true}`).faults(422, "/admin")
	if diff := cmp.Diff([]string{"Globex.de_1-x", "other", "acme"}, w.pages("platform", "/tenants", url.Values{"limit": {"1"}})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.do("platform", "GET", "/tenants/nobody", "").faults(404)
	w.do("platform", "POST", "/tenants/nobody/suspend", "").faults(404)
	w.do("platform", "DELETE", "/tenants/nobody", "").faults(404)
}

func TestADeletedTenantIsGoneAtOnce(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.do("acme", "GET", "/endpoints/"+id, "").want(200) // the token is known now
	w.as("platform", "DELETE", "/tenants/acme", "").with("Prefer", "return=representation").do().want(200).says(`{"deleted":true}`)
	w.do("acme", "GET", "/endpoints/"+id, "").faults(401)
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "acme").do().faults(404)
	w.do("platform", "DELETE", "/tenants/acme", "").faults(404)
	w.do("platform", "GET", "/tokens?limit=250", "").want(200)
	w.do("platform", "POST", "/tenants", `{"name":"acme"}`).want(201)
	w.as("platform", "GET", "/endpoints", "").with(tenantHeader, "acme").do().want(200).says(`{"data":[]}`)
}

func TestTokens(t *testing.T) {
	w := newWorld(t)
	got := w.do("platform", "POST", "/tokens", `{"tenant":"acme","name":"CI","scopes":["events:publish","webhooks:read"],"expires_at":"2026-05-01T02:00:00+02:00"}`).
		want(201).hasHeader("Cache-Control", "no-store")
	id, text := got.text("data.id"), got.text("data.token")
	want := `{"data":{"id":"` + id + `","tenant":"acme","name":"CI","scopes":["events:publish","webhooks:read"],"created_at":"2026-04-29T09:10:00.000Z",` +
		`"expires_at":"2026-05-01T00:00:00.000Z","last_used_at":null,"token":"` + text + `"}}`
	if diff := cmp.Diff(want, got.body); diff != "" || !posthorn.ValidRef("tok_", id) {
		t.Errorf("(-want +got):\n%s", diff)
	}
	w.tokens["made"] = text
	w.do("made", "GET", "/endpoints", "").want(200)
	w.do("made", "POST", "/endpoints", validEndpoint).faults(403)
	list := w.do("platform", "GET", "/tokens?tenant=acme", "").want(200)
	if strings.Contains(list.body, text) || !strings.Contains(list.body, id) || strings.Contains(list.body, `"tenant":null`) || strings.Contains(list.body, `"token"`) {
		t.Errorf("%s", list.body)
	}
	all := w.pages("platform", "/tokens", url.Values{"limit": {"3"}})
	if len(all) != len(principals)+1 || all[0] != id {
		t.Errorf("tokens %v, want %d, newest first", all, len(principals)+1)
	}
	w.do("platform", "GET", "/tokens?tenant=nobody", "").want(200).says(`{"data":[],"next_cursor":null}`)
	w.do("platform", "DELETE", "/tokens/"+id, "").want(204)
	w.do("made", "GET", "/endpoints", "").faults(401)
	w.do("platform", "DELETE", "/tokens/"+id, "").faults(404)
	w.do("platform", "DELETE", "/tokens/x", "").faults(404)

	byDefault := w.do("platform", "POST", "/tokens", `{"tenant":null}`).want(201)
	if want := `"tenant":null,"name":"","scopes":["webhooks:read","webhooks:write"],"created_at":"2026-04-29T09:10:00.000Z","expires_at":null`; !strings.Contains(byDefault.body, want) {
		t.Errorf("%s, want %s", byDefault.body, want)
	}
	w.tokens["made"] = w.do("platform", "POST", "/tokens", `{"tenant":"other","expires_at":"2026-04-29T09:11:00Z"}`).want(201).text("data.token")
	w.do("made", "GET", "/endpoints", "").want(200)
	w.pass(time.Minute)
	w.do("made", "GET", "/endpoints", "").faults(401).says("expired")
}

func TestFaultsOfATokenToBe(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		body     string
		pointers []string
	}{
		{`{"tenant":"nobody"}`, []string{"/tenant"}},
		{`{"tenant":""}`, []string{"/tenant"}},
		{`{"tenant":7,"name":[],"scopes":"admin","expires_at":1}`, []string{"/tenant", "/name", "/scopes", "/expires_at"}},
		{`{"scopes":[]}`, []string{"/scopes"}},
		{`{"scopes":["admin","root","admin"]}`, []string{"/scopes/1", "/scopes/2"}},
		{`{"scopes":["root",1,"admin"]}`, []string{"/scopes/0", "/scopes/1"}},
		{`{"scopes":null,"name":null}`, []string{"/scopes", "/name"}},
		{`{"expires_at":"2026-04-29T09:10:00Z"}`, []string{"/expires_at"}},
		{`{"expires_at":"tomorrow"}`, []string{"/expires_at"}},
		{`{"name":"` + strings.Repeat("x", 129) + `"}`, []string{"/name"}},
		{`{"name":"a\nb","token":"pht_mine","id":"tok_1"}`, []string{"/name", "/token", "/id"}},
	} {
		w.do("platform", "POST", "/tokens", c.body).faults(422, c.pointers...)
	}
}

// No token makes one that can do more than itself, or that outlives it.
func TestATokenCannotRiseAboveItself(t *testing.T) {
	w := newWorld(t)
	w.do("platform-admin", "POST", "/tokens", `{}`).faults(403).says("webhooks:read")
	w.do("platform-admin", "POST", "/tokens", `{"tenant":"acme","scopes":["admin","events:publish"]}`).faults(403).says("events:publish")
	w.do("platform-admin", "POST", "/tokens", `{"scopes":["admin"]}`).want(201)

	text, hash := access.NewToken()
	end := began.Add(time.Hour)
	if _, err := w.store.CreateToken(t.Context(), store.Change{Actor: "test", At: began}, store.Token{
		Ref: posthorn.NewRef("tok_", began), Hash: hash, Scopes: access.Scopes(), CreatedAt: began, ExpiresAt: end,
	}); err != nil {
		t.Fatal(err)
	}
	w.tokens["short"] = text
	w.do("short", "POST", "/tokens", `{}`).want(201).says(`"expires_at":"` + posthorn.FormatTime(end) + `"`)
	w.do("short", "POST", "/tokens", `{"expires_at":null}`).want(201).says(`"expires_at":"` + posthorn.FormatTime(end) + `"`)
	w.do("short", "POST", "/tokens", `{"expires_at":"2026-04-29T10:10:01Z"}`).faults(422, "/expires_at")
	w.do("short", "POST", "/tokens", `{"expires_at":"2026-04-29T10:09:59Z"}`).want(201).says(`09:59.000Z`)
}

func TestTheBrakeOfTheInstallation(t *testing.T) {
	w := newWorld(t)
	for i, on := range []bool{false, false, true, true} {
		path, want := "/sending/resume", `{"data":{"sending":true}}`
		if !on {
			path, want = "/sending/pause", `{"data":{"sending":false}}`
		}
		w.do("platform-admin", "POST", path, "").want(200).says(want)
		if got, err := w.store.Sending(t.Context()); err != nil || got != on {
			t.Errorf("step %d: sending %v, %v", i, got, err)
		}
	}
	w.do("platform", "POST", "/sending/pause", `{"all":true}`).faults(422, "/all")
	w.do("platform", "POST", "/sending/pause", `[]`).faults(422, "")
	if got, _ := w.store.Sending(t.Context()); !got {
		t.Error("a refused request took effect")
	}
	w.do("acme", "POST", "/events", `{"type":"cases.updated","data":{}}`).want(202)
}
