package storetest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// audited lists all that the filter selects, in pages of two.
func (w *world) audited(f store.AuditFilter) []store.AuditEntry {
	w.Helper()
	var all []store.AuditEntry
	for before := int64(0); ; {
		page, next, err := w.s.AuditEntries(w.Context(), f, before, 2)
		w.ok(err)
		if len(page) > 2 {
			w.Fatalf("a page of two has %d entries", len(page))
		}
		all = append(all, page...)
		if next == 0 {
			return all
		}
		before = next
	}
}

// audit renders what the audit says of the tenant, oldest first; of the whole
// installation with -1.
func (w *world) audit(tenant int64) string {
	w.Helper()
	var b strings.Builder
	for _, e := range slices.Backward(w.audited(store.AuditFilter{Tenant: tenant})) {
		fmt.Fprintf(&b, "%s %s %s %s -> %s\n", e.TenantName, e.Actor, e.Action, string(e.Before), string(e.After))
	}
	return b.String()
}

var auditPromises = []promise{
	{"every change is audited with who, before and after, and no secret", func(w *world) {
		ctx, acme := w.Context(), w.tenant.ID
		e := w.endpoint()
		_, err := w.s.UpdateEndpoint(ctx, w.change(), acme, e.Ref, 0, func(e *posthorn.Endpoint) error {
			e.Description, e.Status = "new", posthorn.StatusPaused
			return nil
		})
		w.ok(err)
		_, err = w.s.UpdateEndpoint(ctx, w.change(), acme, e.Ref, 0, func(*posthorn.Endpoint) error { return nil })
		w.ok(err)
		_, err = w.s.UpdateEndpoint(ctx, w.change(), acme, e.Ref, 0, func(e *posthorn.Endpoint) error {
			e.Status = posthorn.StatusActive
			return nil
		})
		w.ok(err)
		_, err = w.s.UpdateSettings(ctx, w.change(), acme, e.Ref, 0, func(s *posthorn.Settings) error {
			s.TimeoutSeconds = 5
			return nil
		})
		w.ok(err)
		w.ok(w.s.DeleteEndpoint(ctx, w.change(), acme, e.Ref, 0))
		tok := w.token(acme, "ci")
		w.ok(w.s.DeleteToken(ctx, w.change(), -1, tok.Ref))
		for _, on := range []bool{true, false} { // each twice: the second changes nothing
			for range 2 {
				_, err = w.s.SuspendTenant(ctx, w.change(), acme, on)
				w.ok(err)
			}
		}
		w.ok(w.s.SetSending(ctx, w.change(), false))
		w.ok(w.s.DeleteTenant(ctx, w.change(), acme))
		expires := tok.ExpiresAt.Format(time.RFC3339Nano)
		endpoint := func(description, status string) string {
			return `{"url":"https://example.com/1","description":"` + description + `","events":["*"],"status":"` + status + `}`
		}
		active, paused, resumed := endpoint("", `active"`), endpoint("new", `paused","paused_reason":"user"`), endpoint("new", `active"`)
		token := `{"name":"ci","scopes":["webhooks:read","events:publish"],"expires_at":"` + expires + `","token":"***"}`
		want := `acme test tenant.create  -> {"name":"acme","suspended":false}
acme test endpoint.create  -> ` + active + `
acme test endpoint.pause ` + active + ` -> ` + paused + `
acme test endpoint.resume ` + paused + ` -> ` + resumed + `
acme test endpoint.settings.update {} -> {"timeout_seconds":5}
acme test endpoint.delete ` + resumed + ` -> 
acme test token.create  -> ` + token + `
acme test token.delete ` + token + ` -> 
acme test tenant.suspend {"name":"acme","suspended":false} -> {"name":"acme","suspended":true}
acme test tenant.resume {"name":"acme","suspended":true} -> {"name":"acme","suspended":false}
`
		last := `acme test tenant.delete {"name":"acme","suspended":false} -> 
`
		if diff := cmp.Diff(want+last, w.audit(acme)); diff != "" {
			w.Error(diff)
		}
		sending := ` test sending.pause {"sending":true} -> {"sending":false}
`
		if diff := cmp.Diff(sending, w.audit(0)); diff != "" {
			w.Error(diff)
		}
		if diff := cmp.Diff(want+sending+last, w.audit(-1)); diff != "" {
			w.Error(diff)
		}
	}},
	{"a pause on Posthorn's own account is audited as Posthorn's", func(w *world) {
		e := w.endpoint()
		rec := w.record(w.result(w.send(e), e, 0, posthorn.Attempt{Status: 410, Class: posthorn.ClassHTTPStatus}))
		if rec.Paused != posthorn.PausedGone {
			w.Fatalf("%+v", rec)
		}
		got := w.audited(store.AuditFilter{Tenant: w.tenant.ID, Actor: "posthorn"})
		if len(got) != 1 || got[0].Action != "endpoint.pause" || got[0].Subject != e.Ref ||
			string(got[0].Before) != `{"status":"active"}` || string(got[0].After) != `{"status":"paused","paused_reason":"gone"}` {
			w.Errorf("%+v", got)
		}
	}},
	{"a change that fails, or is repeated, is not audited", func(w *world) {
		_, err := w.s.CreateTenant(w.Context(), w.change(), "acme")
		w.is(err, store.ErrExists)
		c := w.change()
		c.Once = &store.Once{Route: "POST /tenants", Key: "k", Expires: w.now.Add(time.Hour)}
		for range 2 {
			_, _ = w.s.CreateTenant(w.Context(), c, "b") // the second time it is a repetition
		}
		if got := w.audited(store.AuditFilter{Tenant: -1}); len(got) != 2 {
			w.Errorf("%+v", got)
		}
	}},
	{"what changes nothing can be noted", func(w *world) {
		c := w.change()
		c.Actor = "token:tok_1"
		w.ok(w.s.Note(w.Context(), c, w.tenant.ID, store.Audit{Action: "endpoint.secret.reveal", Subject: "wh_1"}))
		want := store.AuditEntry{At: w.now, Tenant: w.tenant.ID, TenantName: "acme", Actor: "token:tok_1", Action: "endpoint.secret.reveal", Subject: "wh_1"}
		got := w.audited(store.AuditFilter{Tenant: w.tenant.ID, Actor: "token:tok_1"})
		if len(got) != 1 || got[0].ID == 0 {
			w.Fatalf("%+v", got)
		}
		got[0].ID = 0
		if diff := cmp.Diff(want, got[0]); diff != "" {
			w.Error(diff)
		}
		w.is(w.s.Note(w.Context(), c, w.tenant.ID, store.Audit{Action: "x", Subject: "a\x00b"}), store.ErrNUL)
	}},
	{"the audit is selected by tenant, actor, action, subject and time", func(w *world) {
		other, at := w.newTenant("other"), w.now
		for i := range 6 {
			w.now = at.Add(time.Duration(i) * time.Minute)
			c := w.change()
			c.Actor = fmt.Sprintf("token:tok_%d", i%2)
			w.ok(w.s.Note(w.Context(), c, w.tenant.ID, store.Audit{Action: fmt.Sprintf("a.%d", i%3), Subject: fmt.Sprintf("wh_%d", i)}))
		}
		for _, c := range []struct {
			filter store.AuditFilter
			want   string
		}{
			{store.AuditFilter{Tenant: w.tenant.ID, Actor: "token:tok_1"}, "wh_5 wh_3 wh_1"},
			{store.AuditFilter{Tenant: w.tenant.ID, Action: "a.2"}, "wh_5 wh_2"},
			{store.AuditFilter{Tenant: w.tenant.ID, Subject: "wh_4"}, "wh_4"},
			{store.AuditFilter{Tenant: w.tenant.ID, Since: at.Add(4 * time.Minute)}, "wh_5 wh_4"},
			{store.AuditFilter{Tenant: w.tenant.ID, Since: at.Add(time.Minute), Until: at.Add(3 * time.Minute)}, "wh_2 wh_1"},
			{store.AuditFilter{Tenant: other.ID}, "other"},
			{store.AuditFilter{Tenant: 0}, ""},
			{store.AuditFilter{Tenant: -1, Actor: "test"}, "other acme"},
		} {
			var got []string
			for _, e := range w.audited(c.filter) {
				got = append(got, e.Subject)
			}
			if strings.Join(got, " ") != c.want {
				w.Errorf("%+v selects %v; want %s", c.filter, got, c.want)
			}
		}
	}},
	{"the audit outlives its tenant, and goes after its own retention", func(w *world) {
		w.endpoint()
		w.ok(w.s.DeleteTenant(w.Context(), w.change(), w.tenant.ID))
		was := w.audit(-1)
		w.now = w.now.Add(48 * time.Hour)
		w.sweep(store.Retention{Events: time.Hour, Audit: 72 * time.Hour})
		w.sweep(store.Retention{Events: time.Hour}) // 0 keeps it for ever
		if diff := cmp.Diff(was, w.audit(-1)); diff != "" || was == "" {
			w.Error(diff)
		}
		w.newTenant("late")
		w.now = w.now.Add(30 * time.Hour)
		w.sweep(store.Retention{Events: time.Hour, Audit: 72 * time.Hour})
		if got := w.audit(-1); strings.Count(got, "\n") != 1 || !strings.Contains(got, "late") {
			w.Errorf("left is %q", got)
		}
	}},
}
