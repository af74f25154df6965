package web

import (
	"errors"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
)

const (
	// roomFree is what a body may hold without being counted: nearly all bodies
	// are smaller, and their number is bounded by that of connections.
	roomFree = 16 << 10
	// roomStep is how much of a body of unknown length is counted at a time.
	roomStep = 16 << 10
)

// held is what one request holds of a pool of bytes. Nobody waits for room: a
// request that finds none is refused.
type held struct {
	room  *share.Pool // nil for no bound
	who   share.Party
	bytes int64
}

// upTo makes it hold what a body of n bytes needs. The errors are RateLimited when
// the sender has its share, Unavailable when all is taken.
func (h *held) upTo(n int64) error {
	n -= roomFree
	if h.room == nil || n <= h.bytes {
		return nil
	}
	switch err := h.room.Take(h.who, n-h.bytes); {
	case errors.Is(err, share.ErrExceeded):
		return &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: time.Second,
			Message: "Too many large bodies of this tenant, or of this token, are being sent at the same time; wait for their answers."}
	case err != nil:
		return &posthorn.Error{Code: posthorn.Unavailable, RetryAfter: time.Second,
			Message: "Too many large bodies are being sent at the same time; try again."}
	}
	h.bytes = n
	return nil
}

// give returns what is held.
func (h *held) give() {
	if h.bytes > 0 {
		h.room.Give(h.who, h.bytes)
		h.bytes = 0
	}
}
