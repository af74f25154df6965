package store

import (
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
)

// ErrTooMany: an event and its deliveries take their ids from one millisecond.
var ErrTooMany = fmt.Errorf("store: an event can have at most %d deliveries", posthorn.MaxSequence-1)

// NextIDs returns the first of n contiguous ids of one millisecond, above last
// and not before at.
func NextIDs(last posthorn.ID, node uint8, at time.Time, n int) (posthorn.ID, error) {
	if n > posthorn.MaxSequence {
		return 0, ErrTooMany
	}
	first := posthorn.MakeID(at, node, 0)
	if first.Time().After(last.Time()) {
		return first, nil
	}
	// The clock has not moved on, or stepped back.
	if next := int(last.Sequence()) + 1; last.Node() == node && next+n <= posthorn.MaxSequence {
		return posthorn.MakeID(last.Time(), node, uint16(next)), nil
	}
	return posthorn.MakeID(last.Time().Add(time.Millisecond), node, 0), nil
}
