package store

import (
	"context"
	"errors"
	"math"

	"github.com/posthorn/posthorn/internal/share"
)

// ErrBusy: so many long reads of the tenant wait already that one more is refused.
var ErrBusy = errors.New("store: too many long reads of the tenant wait")

const (
	// WalkSlice is about how many rows a slice of a walk looks at: some
	// milliseconds, after which others go first.
	WalkSlice = 1000
	// WalkPlaces is how many slices are read at a time, each on a connection of those
	// that a store keeps for walks.
	WalkPlaces = 2
	// WalksWaiting is how many walks of a tenant wait for the one that is under way.
	WalksWaiting = 8
)

// Walks gives long reads their turn: those whose cost grows with what a tenant keeps,
// as counts, dry runs and exports. A walk is made of slices, each a read of its own
// that looks at a bounded number of rows, so that no state of the database is held for
// long. A tenant has one slice read at a time, and tenants take turns with theirs.
// Slices are read on connections that nothing else uses. It is safe for concurrent use.
type Walks struct{ whole, slices *share.Turns }

// NewWalks returns Walks of which nobody has a turn.
func NewWalks() *Walks {
	return &Walks{
		whole:  share.NewTurns(math.MaxInt, WalksWaiting),
		slices: share.NewTurns(WalkPlaces, math.MaxInt), // few: walks, downloads and replays of a tenant
	}
}

// Begin waits until no other walk of the tenant is under way. end must be called when
// it is over. The error is [ErrBusy] when too many wait already, or the cause of ctx's
// end.
func (w *Walks) Begin(ctx context.Context, tenant int64) (end func(), err error) {
	end, err = w.whole.Enter(ctx, share.Tenant(tenant))
	if errors.Is(err, share.ErrExceeded) {
		err = ErrBusy
	}
	return end, err
}

// Slice runs read when it is the tenant's turn, and returns its error, or the cause of
// ctx's end. read is short, and does not wait for anybody who reads what it found. The
// store reads on the connections for walks whatever it is asked for with read's ctx.
func (w *Walks) Slice(ctx context.Context, tenant int64, read func(ctx context.Context) error) error {
	leave, err := w.slices.Enter(ctx, share.Tenant(tenant))
	if err != nil {
		return err
	}
	defer leave()
	return read(context.WithValue(ctx, ofWalk{}, true))
}

// Waiting is how many tenants have a slice that waits for a connection.
func (w *Walks) Waiting() int { return w.slices.Waiting() }

type ofWalk struct{}

// OfWalk reports whether ctx is that of a slice of a walk.
func OfWalk(ctx context.Context) bool { return ctx.Value(ofWalk{}) != nil }

// Walker is a store that gives long reads their turn. Its own methods that are long
// wait for theirs: [Replays].PlanReplay, [Redelivery].CountPending and CancelPending
// and [Statistics].Stats are a walk each and may return [ErrBusy]; a step of a replay
// ([Replays].FeedReplay) is a slice where it reads beside the writer.
type Walker interface {
	// Walks is whom a caller asks before it reads much with many calls.
	Walks() *Walks
}
