package store

import (
	"context"
	"time"

	"github.com/posthorn/posthorn"
)

// Retention is how long rows are kept, by the acceptance of their event. A zero
// Events keeps everything; of the others zero means as long as what they belong
// to: payloads and deliveries to their event, attempts to their delivery.
type Retention struct {
	Events, Payloads, Deliveries, Attempts time.Duration
	// Audit is apart from all that; 0 is for ever.
	Audit time.Duration
	// Ran is for how long the process has run with a clock that did not jump. Nothing
	// is judged by its age before [SureAfter], and nothing goes by its age before its
	// final state has stood for [ExpiredShown] of that time.
	Ran time.Duration
}

// Bounded fills in what is zero, and cuts what would outlive what it belongs to.
func (r Retention) Bounded() Retention {
	r.Payloads = boundedBy(r.Payloads, r.Events)
	r.Deliveries = boundedBy(r.Deliveries, r.Events)
	r.Attempts = boundedBy(r.Attempts, r.Deliveries)
	return r
}

func boundedBy(d, limit time.Duration) time.Duration {
	if d <= 0 || limit > 0 && d > limit {
		return limit
	}
	return d
}

// Open is how long a delivery may stay open: without payload or row it cannot be
// sent. Zero is for ever.
func (r Retention) Open() time.Duration {
	r = r.Bounded()
	return boundedBy(r.Payloads, r.Deliveries)
}

// Eraser removes payloads and tells what became of deleted tenants.
type Eraser interface {
	// ErasePayload erases the event's body, and of its deliveries' attempts what
	// receivers answered, as that may repeat it. Open deliveries become canceled
	// (ReasonPayloadErased); an attempt under way ends and is recorded without the
	// answer's text. When it returns nothing reads the payload any more; on SQLite
	// its bytes are overwritten in the file and gone from the log, or the event is
	// Erasing: a reader of the file was in the way for five seconds, and they go when it
	// ends, also after a restart. An event that is erased already is returned as it is;
	// one that is Erasing is waited for as before.
	ErasePayload(ctx context.Context, c Change, tenant int64, ref string) (Erased, error)
	// Deletions lists deleted tenants, newest id first: those with an id below
	// before (0 for all).
	Deletions(ctx context.Context, before int64, limit int) ([]Deletion, error)
}

// Erased is what ErasePayload did.
type Erased struct {
	// Event is without its body.
	Event    posthorn.Event
	Canceled int
	Bytes    int
}

// Deletion is what the deletion of a tenant has erased so far.
type Deletion struct {
	Tenant    int64
	Name      string
	DeletedAt time.Time
	// CompletedAt is zero while something is left.
	CompletedAt                                    time.Time
	Endpoints, Secrets, Tokens, Events, Deliveries int64
	PayloadBytes                                   int64
}

// WithoutAnswer takes out of an attempt what the receiver answered.
func WithoutAnswer(a *posthorn.Attempt) { a.Headers, a.Snippet, a.BodyNote = nil, nil, "" }

// Audit is the account as the audit keeps it.
func (d *Deletion) Audit() Audit {
	type account struct {
		Endpoints    int64 `json:"endpoints"`
		Secrets      int64 `json:"secrets"`
		Tokens       int64 `json:"tokens"`
		Events       int64 `json:"events"`
		PayloadBytes int64 `json:"payload_bytes"`
		Deliveries   int64 `json:"deliveries"`
	}
	return Audit{Action: "tenant.erase", Subject: d.Name, Before: account{d.Endpoints, d.Secrets, d.Tokens, d.Events, d.PayloadBytes, d.Deliveries}}
}

// Audit is what the audit says of an erasure.
func (e *Erased) Audit() Audit {
	type erasure struct {
		Bytes    int `json:"bytes"`
		Canceled int `json:"canceled"`
	}
	return Audit{Action: "event.erase", Subject: e.Event.Ref(), Before: erasure{e.Bytes, e.Canceled}}
}
