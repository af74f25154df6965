package lane

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// receiver is what attempts are made to.
type receiver struct {
	mu       sync.Mutex
	answer   func(w *store.Work) posthorn.Attempt // may let time pass
	requests []request
	inFlight map[posthorn.ID]bool
	most     map[int64]int // attempts at a time per endpoint
	now      map[int64]int
	writes   time.Duration                    // how long the first byte takes
	dial     func()                           // or nil; may let time pass
	check    func(*store.Target, *store.Work) // or nil
	// connect reports whether there is a connection, which release gives back; or nil.
	connect func(endpoint int64, first bool) bool
	release func(endpoint int64)
	t       *testing.T
}

type request struct {
	id       posthorn.ID
	endpoint int64
	at       time.Time
	version  int64
}

func newReceiver(t *testing.T, answer func(*store.Work) posthorn.Attempt) *receiver {
	return &receiver{t: t, answer: answer, inFlight: map[posthorn.ID]bool{}, most: map[int64]int{}, now: map[int64]int{}}
}

func (r *receiver) Send(ctx context.Context, t *store.Target, w *store.Work, g Gate) posthorn.Attempt {
	if r.dial != nil {
		r.dial()
	}
	if r.connect != nil {
		if !r.connect(w.Endpoint, g.First()) {
			g.Crowded()
			return posthorn.Attempt{Class: posthorn.ClassLocal}
		}
		defer r.release(w.Endpoint)
	}
	if !g.Enter() {
		return posthorn.Attempt{Class: posthorn.ClassLocal}
	}
	if r.check != nil {
		r.check(t, w)
	}
	r.mu.Lock()
	if r.inFlight[w.ID] {
		r.t.Errorf("delivery %d is in flight twice", w.ID)
	}
	if !t.Endpoint.Active() && (!t.Endpoint.DeletedAt.IsZero() || !w.Progress.Manual) || t.TenantSuspended || t.Endpoint.ID != w.Endpoint {
		r.t.Errorf("an attempt to endpoint %d with target %+v", w.Endpoint, t.Endpoint)
	}
	r.inFlight[w.ID] = true
	r.now[w.Endpoint]++
	r.most[w.Endpoint] = max(r.most[w.Endpoint], r.now[w.Endpoint])
	answer := r.answer
	r.requests = append(r.requests, request{w.ID, w.Endpoint, time.Now(), t.Endpoint.Version})
	r.mu.Unlock()
	wait(r.writes)
	g.Leave()
	ended := make(chan posthorn.Attempt, 1)
	began := time.Now()
	go func() { ended <- answer(w) }()
	var a posthorn.Attempt
	select {
	case a = <-ended:
	case <-ctx.Done():
		a = posthorn.Attempt{Class: posthorn.ClassLocal, Detail: "cut short"}
	}
	a.At, a.Duration = began, time.Since(began)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.inFlight, w.ID)
	r.now[w.Endpoint]--
	return a
}

// seen returns the requests so far, of one endpoint or with 0 of all.
func (r *receiver) seen(endpoint int64) (s []request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, q := range r.requests {
		if endpoint == 0 || q.endpoint == endpoint {
			s = append(s, q)
		}
	}
	return s
}

func ids(requests []request) (s []posthorn.ID) {
	for _, q := range requests {
		s = append(s, q.id)
	}
	return s
}

func ok(*store.Work) posthorn.Attempt { return posthorn.Attempt{Class: posthorn.ClassOK, Status: 200} }
func broken(*store.Work) posthorn.Attempt {
	return posthorn.Attempt{Class: posthorn.ClassHTTPStatus, Status: 500}
}
func hang(*store.Work) posthorn.Attempt {
	wait(posthorn.DefaultTimeout)
	return posthorn.Attempt{Class: posthorn.ClassTimeout}
}
