package sim

import (
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/lane"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// call is a method of the store that a fault may be put on.
type call string

const (
	callPublish     call = "Publish"
	callRecord      call = "Record"
	callClaimDue    call = "ClaimDue"
	callClaimParked call = "ClaimParked"
	callPark        call = "Park"
	callPayload     call = "Payload"
	callTarget      call = "Target"
	callSending     call = "Sending"
)

// faults lets the store's next calls fail.
type faults struct {
	mu   sync.Mutex
	next map[call]fault
}

// fault fails some calls. A late one fails after the commit: the caller is told
// of an error and the change is there. No caller may report that as a success.
type fault struct {
	left int
	late bool
	err  error
}

func (f *faults) set(c call, x fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next == nil {
		f.next = map[call]fault{}
	}
	f.next[c] = x
}

func (f *faults) clear() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.next = nil
}

// armed reports whether any fault is yet to come.
func (f *faults) armed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.next) > 0
}

// take is the error that a call is to fail with before the commit, or after it.
func (f *faults) take(c call) (early, late error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	x, ok := f.next[c]
	if !ok {
		return nil, nil
	}
	if x.left--; x.left <= 0 {
		delete(f.next, c)
	} else {
		f.next[c] = x
	}
	if x.late {
		count("fault: the store's %s fails after its commit", c)
		return nil, x.err
	}
	count("fault: the store's %s fails", c)
	return x.err, nil
}

// seam is the store as the engine and the publishers see it: with gates at which
// the process may die, with faults, and with an ear for what is committed. What
// a dead process asks is refused.
type seam struct {
	*sqlite.Store
	run     *run
	history *history
}

func (s seam) Publish(ctx context.Context, p store.Publication) ([]store.Accepted, error) {
	s.run.gate.pass(beforePublish)
	if s.run.dead.Load() {
		return nil, store.ErrClosed
	}
	early, late := s.run.faults.take(callPublish)
	if early != nil {
		return nil, early
	}
	acc, err := s.Store.Publish(ctx, p)
	if err != nil {
		return acc, err
	}
	s.history.commit(&p, acc, late != nil)
	s.run.gate.pass(afterPublish)
	return acc, late
}

func (s seam) Record(r store.Result, done func(store.Recorded, error)) {
	s.run.gate.pass(beforeRecord)
	early, late := s.run.faults.take(callRecord)
	if s.run.dead.Load() {
		early = store.ErrClosed
	}
	if early != nil {
		done(store.Recorded{}, early)
		return
	}
	s.Store.Record(r, func(rec store.Recorded, err error) {
		if late != nil && err == nil {
			rec, err = store.Recorded{}, late
		}
		if !s.run.gate.waits(afterRecord) {
			done(rec, err)
			return
		}
		// The store's own goroutine must not stand at the gate.
		go func() {
			s.run.gate.pass(afterRecord)
			done(rec, err)
		}()
	})
}

func (s seam) ClaimDue(ctx context.Context, now time.Time, limit int) ([]store.Work, time.Time, error) {
	if err := s.early(callClaimDue); err != nil {
		return nil, time.Time{}, err
	}
	w, next, err := s.Store.ClaimDue(ctx, now, limit)
	if len(w) > 0 {
		s.run.gate.pass(afterClaim)
	}
	return w, next, err
}

func (s seam) ClaimParked(ctx context.Context, endpoint int64, limit int) ([]store.Work, bool, time.Time, error) {
	if err := s.early(callClaimParked); err != nil {
		return nil, false, time.Time{}, err
	}
	w, more, next, err := s.Store.ClaimParked(ctx, endpoint, limit)
	if len(w) > 0 {
		s.run.gate.pass(afterFetch)
	}
	return w, more, next, err
}

func (s seam) Park(ctx context.Context, holds []store.Hold) error {
	s.run.gate.pass(beforePark)
	if s.run.dead.Load() {
		return store.ErrClosed
	}
	early, late := s.run.faults.take(callPark)
	if early != nil {
		return early
	}
	err := s.Store.Park(ctx, holds)
	s.run.gate.pass(afterPark)
	if err == nil {
		err = late
	}
	return err
}

func (s seam) Payload(ctx context.Context, event posthorn.ID) ([]byte, error) {
	if err := s.early(callPayload); err != nil {
		return nil, err
	}
	return s.Store.Payload(ctx, event)
}

func (s seam) Target(ctx context.Context, endpoint int64) (store.Target, error) {
	if err := s.early(callTarget); err != nil {
		return store.Target{}, err
	}
	return s.Store.Target(ctx, endpoint)
}

func (s seam) Sending(ctx context.Context) (bool, error) {
	if err := s.early(callSending); err != nil {
		return false, err
	}
	return s.Store.Sending(ctx)
}

func (s seam) early(c call) error {
	if s.run.dead.Load() {
		return store.ErrClosed
	}
	early, _ := s.run.faults.take(c)
	return early
}

// commit notes what the store has committed; denied tells that the publisher is
// told otherwise.
func (h *history) commit(p *store.Publication, acc []store.Accepted, denied bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, a := range acc {
		e := &p.Events[i]
		if a.Repeated {
			continue
		}
		body := bytes.Clone(e.Body)
		if e.Key == "" {
			posthorn.FillRef(body, a.ID)
		}
		f := &fact{
			id: a.ID, ref: e.Key, key: e.Key, kind: e.Type, tenant: p.Tenant, at: time.Now(), due: p.At, body: string(body),
			denied: denied, open: a.Open, targets: map[posthorn.ID]int64{},
		}
		if f.ref == "" {
			f.ref = a.ID.Text(posthorn.EventPrefix)
		}
		if e.DeliverAt.After(p.At) {
			f.due, f.delayed = e.DeliverAt, true
		}
		for j, t := range e.Targets {
			f.targets[a.ID+1+posthorn.ID(j)] = t.Endpoint
		}
		if _, again := h.byRef[refOf{p.Tenant, f.ref}]; again {
			h.note(kindTwice, "the id %s was stored twice", f.ref)
		}
		h.add(f)
	}
}

// lanes is what app makes of the engine for package publish.
type lanes struct{ *lane.Engine }

func (l lanes) Reserve(tenant, endpoint int64, size int) publish.Slot {
	return l.Engine.Reserve(tenant, endpoint, size)
}

func (l lanes) ReserveParked(endpoint int64) publish.Slot { return l.Engine.ReserveParked(endpoint) }

// everyType is a catalogue that has all types.
type everyType struct{}

func (everyType) Publishable(string) bool { return true }
func (everyType) Suggest(string) string   { return "" }
