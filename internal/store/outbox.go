package store

import (
	"context"
	"errors"
	"time"
)

// ErrTaken: another node has taken a row of the outbox that was to be published.
var ErrTaken = errors.New("store: taken by another node")

// Outbox is what other programs published within transactions of their own. Only
// a store that they can write to has it: PostgreSQL. A row leaves it in the commit
// that publishes it ([Publication.Outbox]), so that each is published once.
type Outbox interface {
	// OutboxWaiting returns committed rows that no other node is publishing now, of
	// any tenants but some: of each the oldest first, together, and of each about as
	// many, at most limit of all. It takes no longer for what waits of those that are
	// left out.
	OutboxWaiting(ctx context.Context, but []int64, limit int) ([]OutboxRow, error)
	// OutboxRefuse keeps rows out of OutboxWaiting, each with its reason. Rows that
	// are gone or refused already are left alone.
	OutboxRefuse(ctx context.Context, at time.Time, reasons map[int64]string) error
	// OutboxChanged tells that there may be rows that are waiting, at the latest a
	// moment after their commit where the database can be heard, and never else.
	OutboxChanged() <-chan struct{}
	// OutboxAhead sets how far ahead DeliverAt may be.
	OutboxAhead(ctx context.Context, d time.Duration) error

	// OutboxRows lists rows with an id below before (0 for all), newest first,
	// without their data; refused selects those.
	OutboxRows(ctx context.Context, refused bool, before int64, limit int) ([]OutboxRow, error)
	// OutboxByID returns a row without its data.
	OutboxByID(ctx context.Context, id int64) (OutboxRow, error)
	// OutboxRetry lets a refused row wait again; one that waits is not changed.
	OutboxRetry(ctx context.Context, c Change, id int64) error
	// OutboxDrop removes a refused row: it will not be published. ErrExists for one
	// that waits.
	OutboxDrop(ctx context.Context, c Change, id int64) error
	// OutboxCounts is cheap but for the waiting ones, of which at most limit are
	// counted. oldest is zero when none wait.
	OutboxCounts(ctx context.Context, limit int) (waiting, refused int, oldest time.Time, err error)
}

// OutboxRow is one event in the outbox.
type OutboxRow struct {
	ID         int64
	Tenant     int64
	TenantName string // "" once the tenant is deleted
	Key        string // the publisher's id or ""
	Type       string
	Data       []byte // as it was given; not in lists
	At         time.Time
	DeliverAt  time.Time // zero for now
	RefusedAt  time.Time // zero for waiting
	Reason     string
}
