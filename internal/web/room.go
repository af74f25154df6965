package web

import (
	"sync"
	"time"

	"github.com/posthorn/posthorn"
)

const (
	// roomFree is what a body may hold without being counted: nearly all bodies
	// are smaller, and their number is bounded by that of connections.
	roomFree = 64 << 10
	// roomStep is how much of a body of unknown length is counted at a time.
	roomStep = 64 << 10
)

// Room bounds the memory that bodies hold at the same time, in all and of each
// who sends them. Nobody waits for room: a request that finds none is refused.
type Room struct {
	all, each int64

	mu    sync.Mutex
	taken int64
	by    map[string]int64
}

// NewRoom returns a Room of so many bytes in all, and of each.
func NewRoom(all, each int64) *Room { return &Room{all: all, each: each, by: make(map[string]int64)} }

// held is what one request holds of a Room.
type held struct {
	room  *Room
	whose string
	bytes int64
}

func (r *Room) hold(whose string) *held { return &held{room: r, whose: whose} }

// upTo makes it hold what a body of n bytes needs. The errors are RateLimited when
// the sender has its share, Unavailable when all is taken.
func (h *held) upTo(n int64) error {
	n -= roomFree
	if h.room == nil || n <= h.bytes {
		return nil
	}
	r := h.room
	more := n - h.bytes
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.by[h.whose]+more > r.each && r.by[h.whose] > 0: // one body of its own always has room
		return &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: time.Second,
			Message: "Too many large bodies are being sent with this token at the same time; wait for their answers."}
	case r.taken+more > r.all && r.taken > 0:
		return &posthorn.Error{Code: posthorn.Unavailable, RetryAfter: time.Second,
			Message: "Too many large bodies are being sent at the same time; try again."}
	}
	r.by[h.whose] += more
	r.taken += more
	h.bytes = n
	return nil
}

// give returns what is held.
func (h *held) give() {
	if h.bytes == 0 {
		return
	}
	r := h.room
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= h.bytes
	if r.by[h.whose] -= h.bytes; r.by[h.whose] == 0 {
		delete(r.by, h.whose)
	}
	h.bytes = 0
}
