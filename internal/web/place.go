package web

import (
	"context"

	"github.com/posthorn/posthorn/internal/share"
)

// Place is the connection that requests come by, as its listener keeps it. It is
// safe for concurrent use: with HTTP/2 a connection has several requests at a time.
type Place interface {
	// Enter counts a request in progress for a party, and the connection for it
	// from now on. reading says that the request's body is still to be read. The
	// error is [share.ErrExceeded] or [share.ErrFull], and then nothing counts.
	Enter(who share.Party, reading bool) error
	// Received says that the body of a request that entered with reading is there.
	Received()
	// Leave ends what Enter began; reading says that Received was never called for it.
	Leave(who share.Party, reading bool)
}

type placeKey struct{}

// WithPlace returns a context for the requests of a connection.
func WithPlace(ctx context.Context, p Place) context.Context {
	return context.WithValue(ctx, placeKey{}, p)
}

// PlaceOf returns the place that a request's context names; nil for none.
func PlaceOf(ctx context.Context) Place {
	p, _ := ctx.Value(placeKey{}).(Place)
	return p
}

// Visit is a request in progress at a place. The zero Visit is of no place, and
// counts nowhere. It is for the request's own goroutine.
type Visit struct {
	place   Place
	who     share.Party
	reading bool
}

// Enter counts the request of ctx for the party, as [Place.Enter] does. With an
// error the Visit is the zero one.
func Enter(ctx context.Context, who share.Party, reading bool) (Visit, error) {
	p := PlaceOf(ctx)
	if p == nil {
		return Visit{}, nil
	}
	if err := p.Enter(who, reading); err != nil {
		return Visit{}, err
	}
	return Visit{p, who, reading}, nil
}

// Received says that the request's body is there. Again is harmless.
func (v *Visit) Received() {
	if v.reading {
		v.reading = false
		v.place.Received()
	}
}

// Leave says that the request is answered. Again is harmless.
func (v *Visit) Leave() {
	if v.place != nil {
		v.place.Leave(v.who, v.reading)
		*v = Visit{}
	}
}
