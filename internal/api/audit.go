package api

import (
	"reflect"
	"strconv"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// AuditEntry is one change, or something else that must be known.
type AuditEntry struct {
	ID      string     `json:"id"`
	At      string     `json:"at" format:"date-time"`
	Tenant  *string    `json:"tenant" doc:"Whose it was, by the name of then; null for the platform's."`
	Actor   string     `json:"actor" doc:"token:ID, jwt:SUBJECT@ISSUER, cli for the command line on the store, posthorn for the service itself."`
	Action  string     `json:"action" doc:"noun.verb, as endpoint.update."`
	Subject *string    `json:"subject" doc:"The id or name of what was changed."`
	Before  auditState `json:"before" doc:"What it was, as users see it; secrets are ***. null for what was not there."`
	After   auditState `json:"after" doc:"What it became; null for what is no more."`
}

// auditState is an object of members that depend on the action, or nil for null.
type auditState jsontext.Value

func (s auditState) MarshalJSONTo(e *jsontext.Encoder) error {
	if s == nil {
		return e.WriteToken(jsontext.Null)
	}
	return e.WriteValue(jsontext.Value(s))
}

func (auditState) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", Nullable: true, AdditionalProperties: true}
}

// auditPrefix begins the ids of entries.
const auditPrefix = "aud_"

func (s *server) auditOperations() []*operation {
	return []*operation{{
		id: "list-audit", method: "GET", path: "/audit", tag: "Audit", scope: access.ScopeRead, platformScope: access.ScopeAdmin, reach: ofTenantOrAll,
		summary: "List what was changed, by whom",
		description: "Newest first: every change with what was there before and after, secrets masked, and what was shown or taken out. " +
			"A tenant's token sees the tenant's; a platform token all of the installation, or with Posthorn-Tenant a tenant's. " +
			"A page may be short or empty and still have a next_cursor.",
		query: []param{limitParam, cursorParam,
			{"actor", "Exactly this actor.", stringSchema()},
			{"action", "Exactly this action.", stringSchema()},
			{"subject", "Exactly this subject.", stringSchema()},
			{"since", "At this time or later.", timeSchema()}, {"until", "Before this time.", timeSchema()}},
		success: []success{{status: 200, doc: "A page of entries.", model: reflect.TypeFor[list[AuditEntry]]()}},
		handle:  s.listAudit,
	}}
}

func (s *server) listAudit(q *request) (*reply, error) {
	limit, before := q.query.limit(defaultLimit), s.placeID(q)
	f := store.AuditFilter{
		Tenant: q.tenant.ID, Actor: q.query.text("actor"), Action: q.query.text("action"), Subject: q.query.text("subject"),
		Since: q.query.time("since"), Until: q.query.time("until"),
	}
	if err := q.query.err(); err != nil {
		return nil, err
	}
	if f.Tenant == 0 {
		f.Tenant = -1 // a platform token that names no tenant
	}
	entries, next, err := s.Store.AuditEntries(q.Context(), f, before, limit)
	if err != nil {
		return nil, err
	}
	return pageReply(s, q, entries, showAudit, func(e *store.AuditEntry) int64 { return e.ID }, next)
}

func showAudit(e *store.AuditEntry) AuditEntry {
	return AuditEntry{
		ID: auditPrefix + strconv.FormatInt(e.ID, 10), At: posthorn.FormatTime(e.At), Tenant: maybe(e.TenantName),
		Actor: e.Actor, Action: e.Action, Subject: maybe(e.Subject),
		Before: auditState(e.Before), After: auditState(e.After),
	}
}
