package store

import (
	"context"
	"time"
)

// Export is what a tenant may download of its own until it expires. Nothing is
// stored for it but this: it is read when it is downloaded.
type Export struct {
	Ref    string // exp_ + ULID
	Tenant int64
	// Since and Until bound the events by their acceptance: since <= t < until.
	// Since may be zero; Until is fixed when the export is made.
	Since, Until         time.Time
	CreatedAt, ExpiresAt time.Time
}

// Exports keeps what may be downloaded.
type Exports interface {
	CreateExport(ctx context.Context, c Change, e Export) error
	// ExportByRef returns ErrNotFound for an expired one too.
	ExportByRef(ctx context.Context, tenant int64, ref string, now time.Time) (Export, error)
}

// AuditExport is what the audit keeps of an export.
func AuditExport(e Export) any {
	type bounds struct {
		Since string `json:"since,omitzero"`
		Until string `json:"until"`
	}
	b := bounds{Until: e.Until.UTC().Format(time.RFC3339)}
	if !e.Since.IsZero() {
		b.Since = e.Since.UTC().Format(time.RFC3339)
	}
	return b
}
