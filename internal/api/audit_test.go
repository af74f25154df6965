package api

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTheAuditTellsWhoChangedWhat(t *testing.T) {
	w := newWorld(t)
	id := w.endpoint("acme", validEndpoint)
	w.pass(time.Hour)
	w.do("acme-write", "PATCH", "/endpoints/"+id, `{"description":"Production"}`).want(200)
	w.do("acme-write", "PATCH", "/endpoints/"+id, `{"description":"Production"}`).want(200) // changes nothing
	w.do("acme-write", "PATCH", "/endpoints/"+id, `{"description":7}`).faults(422, "/description")
	w.endpoint("other", validEndpoint)
	w.do("platform", "POST", "/tokens", `{"name":"CI","tenant":"acme","scopes":["webhooks:read"]}`).want(201)
	w.do("platform", "POST", "/sending/pause", "").want(200)

	page := w.do("acme-read", "GET", "/audit?subject="+id, "").want(200)
	if got := page.text("data.0.action") + " " + page.text("data.1.action"); got != "endpoint.update endpoint.create" {
		t.Errorf("the endpoint's: %s", page.body)
	}
	changed := page.text("data.0.before.description") + " -> " + page.text("data.0.after.description")
	if changed != " -> Production" || page.text("data.0.tenant") != "acme" || !strings.HasPrefix(page.text("data.0.actor"), "token:tok_") ||
		page.text("data.0.at") != "2026-04-29T10:10:00.000Z" || len(page.ids()) != 2 || page.value("data.1.before") != nil {
		t.Errorf("the change of the description: %s", page.body)
	}
	if strings.Contains(page.body, "whsec_") {
		t.Error("it shows a secret")
	}
	for who, want := range map[string]string{"acme-read": "acme", "other": "other"} {
		all := w.do(who, "GET", "/audit?limit=250", "").want(200)
		for i := range all.ids() {
			if got := all.text("data." + string(rune('0'+i)) + ".tenant"); got != want {
				t.Errorf("%s sees an entry of %q: %s", who, got, all.body)
			}
		}
	}
	w.do("acme-read", "GET", "/audit?action=token.create&actor=nobody", "").want(200).says(`"data":[]`)
	w.do("acme-read", "GET", "/audit?subject=%00", "").want(200).says(`"data":[]`)
	w.do("acme-write", "GET", "/audit", "").faults(403)
	w.do("acme-admin", "GET", "/audit", "").faults(403)

	whole := w.do("platform-admin", "GET", "/audit", "").want(200).says(`"action":"sending.pause"`).says(`"tenant":"other"`)
	if whole.value("data.0.tenant") != nil || whole.value("data.0.subject") != nil {
		t.Errorf("the switch is somebody's: %s", whole.body)
	}
	w.do("platform-read", "GET", "/audit", "").faults(403)
	named := w.as("platform-admin", "GET", "/audit?limit=250", "").with(tenantHeader, "other").do().want(200)
	if strings.Contains(named.body, `"tenant":"acme"`) || strings.Contains(named.body, "sending.pause") {
		t.Errorf("of one tenant: %s", named.body)
	}
}

func TestTheAuditComesInPagesByTime(t *testing.T) {
	w := newWorld(t)
	w.pass(time.Hour)
	var made []string
	for range 9 {
		made = append(made, w.endpoint("acme", validEndpoint))
		w.pass(time.Minute)
	}
	all := w.pages("acme", "/audit", url.Values{"action": {"endpoint.create"}, "limit": {"2"}})
	if len(all) != len(made) {
		t.Errorf("%d entries, want %d", len(all), len(made))
	}
	at := func(minute time.Duration) string {
		return began.Add(time.Hour + minute*time.Minute).Format(time.RFC3339)
	}
	some := w.pages("acme", "/audit", url.Values{"action": {"endpoint.create"}, "limit": {"3"}, "since": {at(2)}, "until": {at(5)}})
	if diff := cmp.Diff(all[4:7], some); diff != "" {
		t.Errorf("from minute 2 to 5: %s", diff)
	}
	cursor := w.do("acme", "GET", "/audit?limit=2", "").want(200).text("next_cursor")
	w.do("other", "GET", "/audit?limit=2&cursor="+cursor, "").faults(400)
	w.do("acme", "GET", "/audit?limit=2&actor=cli&cursor="+cursor, "").faults(400)
	w.do("acme", "GET", "/audit?who=me", "").faults(400)
}
