package api

import (
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/web"
)

// countsFor is the party of a request that was let in: the tenant that it names,
// else its token.
func (q *request) countsFor() share.Party {
	switch {
	case q.tenant.ID != 0:
		return share.Tenant(q.tenant.ID)
	case q.principal.Platform:
		return share.Platform(q.principal.TokenRef)
	}
	return share.Token(q.principal.TokenRef)
}

// enter counts the request among those in progress. Who has its share of them is
// refused, before anything of the body is read.
func (q *request) enter() (err error) {
	q.party = q.countsFor()
	q.visit, err = web.Enter(q.Context(), q.party, q.op.body != nil && q.ContentLength != 0)
	return busy(err, "requests")
}

// busy puts into words that a party has its share of something, or that all is
// taken. what is a plural.
func busy(err error, what string) error {
	switch {
	case errors.Is(err, share.ErrExceeded):
		return &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: time.Second,
			Message: "Too many " + what + " of this tenant, or of this token, are under way at the same time; wait for their answers."}
	case errors.Is(err, share.ErrFull):
		return &posthorn.Error{Code: posthorn.Unavailable, RetryAfter: time.Second,
			Message: "Too many " + what + " are under way at the same time; try again."}
	}
	return err
}
