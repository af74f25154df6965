package store

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// Audit is what the audit says of one change, beside its [Change].
type Audit struct {
	// Action is noun.verb, as "endpoint.update".
	Action string
	// Subject is the id that users know the thing by; "" for the installation.
	Subject string
	// Before and After are what users see of it, encoded as JSON objects: only
	// what tells one state from the other, and never a secret (see [Masked]). nil
	// for a thing that was not there, or is no more.
	Before, After any
}

// Masked stands where a secret was or is.
const Masked = "***"

// Rendered is an Audit as it is stored: "" for nothing.
type Rendered struct{ Action, Subject, Before, After string }

// Render encodes both states. Text that not every store can keep is an error.
func (a Audit) Render() (Rendered, error) {
	r := Rendered{Action: a.Action, Subject: a.Subject}
	var err error
	if r.Before, err = document(a.Before); err != nil {
		return r, err
	}
	if r.After, err = document(a.After); err != nil {
		return r, err
	}
	return r, CheckText(r.Action, r.Subject, r.Before, r.After)
}

func document(v any) (string, error) {
	if v == nil {
		return "", nil
	}
	b, err := json.Marshal(v, json.Deterministic(true), jsontext.AllowInvalidUTF8(true))
	if err != nil {
		return "", fmt.Errorf("store: encode the audit's %T: %w", v, err)
	}
	return string(b), nil
}

// AuditEntry is one row of the audit.
type AuditEntry struct {
	ID int64
	At time.Time
	// Tenant is 0 for what belongs to the platform. TenantName is the name at the
	// time: it stays when the tenant is gone, and another one may have it since.
	Tenant     int64
	TenantName string
	Actor      string
	Action     string
	Subject    string
	// Before and After are JSON objects, or nil.
	Before, After jsontext.Value
}

// AuditFilter selects entries. Zero fields select all.
type AuditFilter struct {
	// Tenant is -1 for the whole installation and 0 for what is the platform's.
	Tenant                 int64
	Actor, Action, Subject string
	Since, Until           time.Time // since <= t < until
}

// Selects reports whether the entry is one of the filter's.
func (f *AuditFilter) Selects(e *AuditEntry) bool {
	return (f.Tenant < 0 || e.Tenant == f.Tenant) &&
		(f.Actor == "" || e.Actor == f.Actor) &&
		(f.Action == "" || e.Action == f.Action) &&
		(f.Subject == "" || e.Subject == f.Subject) &&
		within(e.At, f.Since, f.Until)
}

// clocksDiffer is how far the times of entries may be out of their order: the
// nodes' clocks differ, and one may be set back.
const clocksDiffer = time.Hour

// Past reports whether no older entry can be one of the filter's.
func (f *AuditFilter) Past(e *AuditEntry) bool {
	return !f.Since.IsZero() && e.At.Before(f.Since.Add(-clocksDiffer))
}

// Auditing keeps the audit. Every changing method that takes a [Change] writes it
// in its own commit.
type Auditing interface {
	// Note records what changes nothing and is to be known all the same: a secret
	// that was shown, an export. tenant is 0 for the platform's.
	Note(ctx context.Context, c Change, tenant int64, a Audit) error
	// AuditEntries lists entries, newest first, with an id below before (0 for
	// all). It reads a bounded number of rows: a page may be short or empty and
	// still have a next; next is 0 at the end.
	AuditEntries(ctx context.Context, f AuditFilter, before int64, limit int) (entries []AuditEntry, next int64, err error)
}

// AuditedEndpoint is what the audit shows of an endpoint.
type AuditedEndpoint struct {
	URL          string                  `json:"url"`
	Description  string                  `json:"description"`
	Events       []posthorn.Pattern      `json:"events"`
	Status       posthorn.EndpointStatus `json:"status"`
	PausedReason posthorn.PausedReason   `json:"paused_reason,omitzero"`
}

// AuditEndpoint is e for an [Audit], without its settings, which change apart.
func AuditEndpoint(e *posthorn.Endpoint) any {
	return AuditedEndpoint{e.URL, e.Description, e.Events, e.Status, e.PausedReason}
}

// AuditPause is a pause on Posthorn's own account.
func AuditPause(ref string, reason posthorn.PausedReason) Audit {
	type status struct {
		Status posthorn.EndpointStatus `json:"status"`
		Reason posthorn.PausedReason   `json:"paused_reason,omitzero"`
	}
	return Audit{Action: "endpoint.pause", Subject: ref, Before: status{posthorn.StatusActive, ""}, After: status{posthorn.StatusPaused, reason}}
}

// AuditedTenant is what the audit shows of a tenant.
type AuditedTenant struct {
	Name      string `json:"name"`
	Suspended bool   `json:"suspended"`
}

// AuditTenant is t for an [Audit].
func AuditTenant(t posthorn.Tenant) any { return AuditedTenant{t.Name, t.Suspended()} }

// AuditedToken is what the audit shows of a token.
type AuditedToken struct {
	Name      string    `json:"name"`
	Scopes    []string  `json:"scopes"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Token     string    `json:"token"`
}

// AuditToken is t for an [Audit].
func AuditToken(t *Token) any {
	return AuditedToken{t.Name, t.Scopes, t.ExpiresAt.UTC(), Masked}
}

// AuditedSending is what the audit shows of the sending switch.
type AuditedSending struct {
	Sending bool `json:"sending"`
}
