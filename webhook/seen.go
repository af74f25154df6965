package webhook

import (
	"context"
	"fmt"
	"time"
)

// Claim is what a [Seen] knows of an event's id.
type Claim uint8

const (
	Fresh   Claim = iota // nobody handled it: the caller does now
	Busy                 // somebody is handling it at this moment
	Handled              // it was handled
)

// Seen remembers which events were handled, so that one that is sent again is
// handled once. Its methods may be called concurrently, and for it to serve
// several processes they share one: a table with a unique column does.
//
// A handled id is kept for at least twice the [Verifier]'s tolerance since it was last
// claimed: for so long a request that was recorded can be sent again. Where there is no
// room for another id, Claim fails ([FullError]); to forget a younger one instead would
// let that one be handled twice.
type Seen interface {
	// Claim reports what is known of the id and, when that is Fresh, takes it for
	// the caller, in one step. A [Receiver] passes the event's id behind a short prefix
	// that stands for the secret, so that endpoints that share a Seen share no ids.
	// While a secret is rotated it claims the id once for each.
	Claim(ctx context.Context, id string) (Claim, error)
	// Release ends a claim: handled ids are remembered, others are Fresh again. It
	// is called once for each Fresh one, also when the request was given up.
	Release(ctx context.Context, id string, handled bool) error
}

// FullError is what a [Seen] returns that has no room for another id. The [Receiver]
// answers 503, so that the event is sent again later.
type FullError struct {
	// Limit is how many ids there is room for.
	Limit int
	// After is when there is room again, as far as is known; 0 if it is not.
	After time.Duration
}

func (e *FullError) Error() string {
	return fmt.Sprintf("%d ids of events are remembered, and none may be forgotten yet; raise MaxSeen, or give Seen a database", e.Limit)
}

// taking claims the ids of one endpoint for a [Receiver].
type taking struct {
	seen     Seen
	verifier *Verifier
	// shared says that other endpoints may use the Seen too.
	shared bool
}

// take claims an event's id under all its names. Those that it returns are the caller's
// to release, and there are some only with Fresh.
func (t *taking) take(ctx context.Context, g genuine) (Claim, []string, error) {
	names := []string{g.event.ID}
	if t.shared {
		names = g.from.names(g.event.ID)
	}
	known, mine, err := t.claimAll(ctx, names)
	if err == nil && known == Fresh {
		// Only now is it certain that it was not forgotten: it could be, between verifying
		// and claiming, if the time of the request ended between them.
		err = t.verifier.checkTime(g.at)
	}
	if err != nil {
		_ = t.release(ctx, mine, false) // the first error says what is wrong
		return Busy, nil, err
	}
	if known == Fresh {
		return Fresh, mine, nil
	}
	// What was handled under one name is from now on known by all.
	return known, nil, t.release(ctx, mine, known == Handled)
}

// claimAll claims names and returns what is known of them, and which were Fresh.
func (t *taking) claimAll(ctx context.Context, names []string) (known Claim, mine []string, err error) {
	for _, name := range names {
		claim, err := t.claim(ctx, name)
		if err != nil {
			return Busy, mine, err
		}
		if claim == Fresh {
			mine = append(mine, name)
		}
		if known = max(known, claim); claim == Busy {
			break // to claim the others could only be in the way of who has it
		}
	}
	return known, mine, nil
}

// claim passes on to a Memory what the verifier's clock and tolerance are.
func (t *taking) claim(ctx context.Context, name string) (Claim, error) {
	if m, ok := t.seen.(*Memory); ok {
		return m.claim(name, t.verifier.Now(), m.keep(t.verifier.Tolerance))
	}
	return t.seen.Claim(ctx, name)
}

// release ends claims, also when the request was given up: what was done was done all
// the same.
func (t *taking) release(ctx context.Context, names []string, handled bool) (err error) {
	for _, name := range names {
		if e := t.seen.Release(context.WithoutCancel(ctx), name, handled); err == nil {
			err = e
		}
	}
	return err
}
