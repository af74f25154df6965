package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// storeError turns what the store says of its own state into what a user is
// told. Errors about a row (not found, version) are the operation's to name.
func storeError(err error) error {
	if _, ok := errors.AsType[*posthorn.Error](err); ok {
		return err
	}
	later := func(wait time.Duration, message string) error {
		return &posthorn.Error{Code: posthorn.Unavailable, Message: message, RetryAfter: wait}
	}
	switch {
	case errors.Is(err, store.ErrBusy):
		return &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: 5 * time.Second,
			Message: fmt.Sprintf("The tenant has %d long reads waiting (counts, dry runs, statistics); let them end first.", store.WalksWaiting)}
	case errors.Is(err, store.ErrOverloaded):
		return later(time.Second, "More is waiting to be written than can be taken now; try again.")
	case errors.Is(err, store.ErrFull):
		return later(time.Minute, "The service is short of disk space and takes nothing new; try again later.")
	case errors.Is(err, store.ErrUnsettled):
		return later(5*time.Second, "The database did not answer in time, and it is not known yet whether this was done; look, or repeat the request with the same Idempotency-Key.")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrClosed):
		return later(5*time.Second, "The service's store cannot be used now; try again.")
	case errors.Is(err, context.Canceled):
		// A sender that closes its half of a connection counts as gone (net/http) but
		// may still read.
		return later(time.Second, "The request was broken off before it was answered; try again.")
	case errors.Is(err, context.DeadlineExceeded):
		return later(time.Second, "The request took too long; try again.")
	case errors.Is(err, store.ErrOnceReused):
		return posthorn.Errorf(posthorn.Invalid, "This Idempotency-Key was used for another request; take a new key for each request.")
	}
	return err
}

// missing makes a row that is not there a 404, whoever else it may belong to.
func missing(err error, what string) error {
	if errors.Is(err, store.ErrNotFound) {
		return posthorn.Errorf(posthorn.NotFound, "There is no %s with this id.", what)
	}
	return err
}

func isMissing(err error) bool { return errors.Is(err, store.ErrNotFound) }
