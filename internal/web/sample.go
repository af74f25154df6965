package web

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

const (
	// sampled is how many refused requests of a status have a line of their own in
	// each sampleFor.
	sampled   = 10
	sampleFor = time.Second
)

// sampler keeps refused requests from filling the log: whoever has no token can send
// thousands a second. Of each status the first ones of a second have their line, the
// others one together.
type sampler struct {
	log *slog.Logger

	mu sync.Mutex
	by [100]refusals // by status, from 400 on
}

type refusals struct{ seen, leftOut int }

// refused reports whether an answer is one of those that come in floods: to somebody
// who is not known, or whose share is used up.
func (x *exchange) refused() bool {
	s := x.answer.status
	return s >= 400 && s < 500 && (!x.known || s == http.StatusTooManyRequests)
}

// leaveOut reports whether the line of a refused request is to be left out, and
// counts it.
func (s *sampler) leaveOut(status int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := &s.by[status-400]
	if r.seen++; r.seen == 1 {
		time.AfterFunc(sampleFor, func() { s.sum(status) })
	}
	if r.seen <= sampled {
		return false
	}
	r.leftOut++
	return true
}

// sum ends a second, with the line of those that had none.
func (s *sampler) sum(status int) {
	s.mu.Lock()
	n := s.by[status-400].leftOut
	s.by[status-400] = refusals{}
	s.mu.Unlock()
	if n > 0 {
		s.log.LogAttrs(context.Background(), slog.LevelInfo, "more requests were refused",
			slog.Int("status", status), slog.Int("requests", n))
	}
}
