package api

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

const (
	// rightCheck is the pause between looks whether an answer may go on, if nothing is
	// heard of tokens or tenants that change: a token may have expired.
	rightCheck = time.Minute
	// lastWord is how long an answer that may not go on may take to end what is being
	// written, and to say why.
	lastWord = 500 * time.Millisecond
)

// rights are heard of while long answers are given: streams and exports.
type rights struct {
	mu      sync.Mutex
	epoch   uint64        // counts what may have ended the right to read
	changed chan struct{} // closed with the next epoch; nil while nobody waits for it
}

// notice is told what the store tells.
func (r *rights) notice(n store.Notice) {
	if n.Kind != store.NoticeAll && n.Kind != store.NoticeToken && n.Kind != store.NoticeTenant {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.epoch++
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// now is the epoch, and what is closed when it is over.
func (r *rights) now() (epoch uint64, over <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.epoch, r.changed
}

// right is what a long answer is given by. It ends while the answer waits for the store
// or for its reader, too, within [lastWord] of when this node hears of it.
type right struct {
	s    *server
	q    *request
	conn *http.ResponseController
	// ctx is for what the answer waits for; its cause is why the right has ended.
	ctx context.Context
	end context.CancelCauseFunc

	asking  sync.Mutex
	epoch   uint64
	checked time.Time // zero until it was first

	writing sync.Mutex // guards the time to write and what ends it
}

// rightOf begins to watch the right to an answer. release ends that, and must be called
// before the answer has ended.
func (s *server) rightOf(q *request, w http.ResponseWriter) (r *right, release func()) {
	r = &right{s: s, q: q, conn: http.NewResponseController(w)}
	r.ctx, r.end = context.WithCancelCause(q.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		r.watch()
	}()
	return r, func() { r.end(context.Canceled); <-watched }
}

func (r *right) watch() {
	for r.ctx.Err() == nil {
		_, over := r.s.rights.now()
		_ = r.goesOn(false) // it ends the context
		select {
		case <-r.ctx.Done():
		case <-over:
		case <-time.After(rightCheck):
		}
	}
}

// goesOn returns nil while the request would still be let in, and else a sentence that
// says why it would not: its token was revoked or has expired, or its tenant was deleted.
// It asks when something was heard, and each minute, so that it can be called as often
// as one likes; with always it asks. While it cannot be found out, the answer goes on.
func (r *right) goesOn(always bool) error {
	r.asking.Lock()
	defer r.asking.Unlock()
	epoch, _ := r.s.rights.now() // first: what is heard while it asks is asked about again
	if always || epoch != r.epoch || r.checked.IsZero() || time.Since(r.checked) >= rightCheck {
		r.epoch, r.checked = epoch, time.Now()
		if err := r.s.stillAdmits(r.q); err != nil {
			r.cut(err)
		}
	}
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	return nil
}

// cut ends the answer: what waits, and what is being written to a reader that does not
// read.
func (r *right) cut(why error) {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.ctx.Err() == nil {
		r.end(why)
		_ = r.conn.SetWriteDeadline(time.Now().Add(lastWord)) // a writer without a connection has none
	}
}

// mayWrite gives the answer another while to write; the error is why it may not.
func (r *right) mayWrite(within time.Duration) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	if r.ctx.Err() != nil {
		return context.Cause(r.ctx)
	}
	if err := r.conn.SetWriteDeadline(time.Now().Add(within)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// reason is why the right has ended, in a sentence for the reader; empty when it has
// not, or when the reader is gone.
func (r *right) reason() string {
	if e, ok := errors.AsType[*posthorn.Error](context.Cause(r.ctx)); ok {
		return e.Message
	}
	return ""
}

// stillAdmits is nil if a request would be let in now, or if that cannot be found out.
func (s *server) stillAdmits(q *request) error {
	p, err := s.Access.Again(q.Context(), q.Header["Authorization"])
	if err != nil {
		return barring(err)
	}
	now := &request{Request: q.Request, op: q.op, principal: p, at: q.at}
	if !p.Has(q.op.scopeOf(p)) {
		return posthorn.Errorf(posthorn.Forbidden, "The token does not have the scope %s any more.", q.op.scopeOf(p))
	}
	err = s.chooseTenant(now)
	if posthorn.ErrorCode(err) == posthorn.NotFound || err == nil && now.tenant.ID != q.tenant.ID { // its name may be another's by now
		return posthorn.Errorf(posthorn.NotFound, "The tenant was deleted.")
	}
	return barring(err)
}

// barring is an error that is a refusal, and nil for trouble that passes.
func barring(err error) error {
	switch posthorn.ErrorCode(err) {
	case posthorn.Unauthorized, posthorn.Forbidden:
		return err
	}
	return nil
}
