package api

import (
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// rightCheck is the pause between looks whether an answer may go on, if nothing is
// heard of tokens or tenants that change: a token may have expired.
const rightCheck = time.Minute

// rights are heard of while long answers are given: streams and exports.
type rights struct {
	epoch atomic.Uint64 // counts what may have ended the right to read
}

// notice is told what the store tells.
func (r *rights) notice(n store.Notice) {
	if n.Kind == store.NoticeAll || n.Kind == store.NoticeToken || n.Kind == store.NoticeTenant {
		r.epoch.Add(1)
	}
}

// right is what a long answer is given by. It is for one goroutine.
type right struct {
	q       *request
	heard   *rights
	epoch   uint64
	checked time.Time // zero until it was first
}

func (r *rights) of(q *request) *right { return &right{q: q, heard: r} }

// mayGoOn reports whether a request would still be let in: its token may have been
// revoked or have expired, or its tenant been deleted. It asks when something was
// heard, and each minute, so that it can be called as often as one likes; while it
// cannot be found out, the answer goes on.
func (s *server) mayGoOn(r *right) bool {
	epoch := r.heard.epoch.Load() // first: what is heard while it asks is asked about again
	if epoch == r.epoch && !r.checked.IsZero() && time.Since(r.checked) < rightCheck {
		return true
	}
	r.epoch, r.checked = epoch, time.Now()
	return s.stillAdmits(r.q)
}

func (s *server) stillAdmits(q *request) bool {
	p, err := s.Access.Again(q.Context(), q.Header["Authorization"])
	if err != nil {
		return !isRefusal(err)
	}
	now := &request{Request: q.Request, op: q.op, principal: p, at: q.at}
	if !p.Has(q.op.scopeOf(p)) {
		return false
	}
	if err := s.chooseTenant(now); err != nil {
		return !isRefusal(err)
	}
	return now.tenant.ID == q.tenant.ID // its name may be another's by now
}

// isRefusal tells a refusal from trouble that passes.
func isRefusal(err error) bool {
	switch posthorn.ErrorCode(err) {
	case posthorn.Unauthorized, posthorn.Forbidden, posthorn.NotFound:
		return true
	}
	return false
}
