package client

import (
	"context"
	"iter"
	"net/url"
	"time"

	"github.com/go-json-experiment/json/jsontext"
)

// AuditEntry is a change, or something else that must be known.
type AuditEntry struct {
	resource `json:"-"`
	ID       string    `json:"id"`
	At       time.Time `json:"at"`
	// Tenant is empty for what is the platform's.
	Tenant string `json:"tenant"`
	// Actor is "token:ID", "jwt:SUBJECT@ISSUER", "cli" or "posthorn".
	Actor string `json:"actor"`
	// Action is noun.verb, as "endpoint.update".
	Action string `json:"action"`
	// Subject is the id or name of what was changed; empty for the installation.
	Subject string `json:"subject"`
	// Before and After are JSON objects, or null.
	Before jsontext.Value `json:"before"`
	After  jsontext.Value `json:"after"`
}

// AuditFilter selects entries. Zero fields select all.
type AuditFilter struct {
	Actor, Action, Subject string
	Since, Until           time.Time // since <= t < until
	// PageSize bounds what one request asks for; 0 for the most.
	PageSize int
}

// Audit lists what was changed, newest first: the tenant's, or with a platform
// token that names none, all of the installation. It needs the scope
// "webhooks:read", a platform token "admin".
func (c *Client) Audit(ctx context.Context, f AuditFilter) iter.Seq2[*AuditEntry, error] {
	q := url.Values{}
	for name, value := range map[string]string{
		"actor": f.Actor, "action": f.Action, "subject": f.Subject, "since": instant(f.Since), "until": instant(f.Until),
	} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return list[AuditEntry](ctx, c, "/audit", q, f.PageSize)
}
