package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// maxAhead bounds how far in the future an event may say that it happened: clocks
// and time zones differ, but not by more.
const maxAhead = 24 * time.Hour

// checker returns what checks an event against the catalogue and the time.
func (s *Service) checker() check {
	now := s.cfg.Now()
	return func(e *Event, at place, skip members, f *faults) { s.check(e, at, skip, f, now) }
}

func (s *Service) check(e *Event, at place, skip members, f *faults, now time.Time) {
	if skip&memberType == 0 && posthorn.ValidType(e.Type) && !s.cfg.Catalog.Publishable(e.Type) {
		detail := ""
		if !f.full() {
			detail = s.refuseType(e.Type) // compares with the whole catalogue
		}
		f.add(at, "type", detail)
	}
	if skip&memberTimestamp == 0 && e.Timestamp.Sub(now) > maxAhead {
		f.add(at, e.called("timestamp"), "must be at most 24 hours ahead")
	}
	if skip&memberDeliverAt == 0 && e.DeliverAt.Sub(now) > s.cfg.Retention/2 {
		f.add(at, e.called("deliver_at"), fmt.Sprintf("must be at most %s ahead, half the time that events are kept", days(s.cfg.Retention/2)))
	}
}

func (s *Service) refuseType(name string) string {
	if posthorn.Pattern(posthorn.OperationalPrefix + "*").Match(name) {
		return "is an operational type, which Posthorn alone publishes"
	}
	if near := s.cfg.Catalog.Suggest(name); near != "" {
		return "is not in the catalogue; the nearest is " + near
	}
	return "is not in the catalogue; GET /v2.3/webhooks/event-types lists what is"
}

func days(d time.Duration) string {
	const day = 24 * time.Hour
	if d%day == 0 {
		return fmt.Sprintf("%d days", d/day)
	}
	return d.String()
}

// validate finds all that is wrong with the events.
func (s *Service) validate(t posthorn.Tenant, events []Event, pointer func(i int) string, now time.Time) error {
	var f faults
	if len(events) == 0 || len(events) > MaxBatchEvents {
		f.add(place{}, "events", fmt.Sprintf("holds %d events; it must hold 1 to %d", len(events), MaxBatchEvents))
		return f.err()
	}
	for i := range events {
		e, at := &events[i], place{pointer, i}
		e.checkForm(at, 0, &f)
		s.check(e, at, 0, &f, now)
		if e.Tenant != "" && e.Tenant != t.Name {
			f.add(at, "tenant", "must be "+t.Name+": all events of a request are of one tenant")
		}
	}
	return f.err()
}

// limit holds a tenant to its rate.
func (s *Service) limit(t posthorn.Tenant, events int, now time.Time) error {
	if s.cfg.RatePerSecond <= 0 {
		return nil
	}
	s.mu.Lock()
	l := s.limiters[t.ID]
	if l == nil {
		l = rate.NewLimiter(rate.Limit(s.cfg.RatePerSecond), max(MaxBatchEvents, int(s.cfg.RatePerSecond)))
		s.limiters[t.ID] = l
	}
	s.mu.Unlock()
	r := l.ReserveN(now, events)
	wait := r.DelayFrom(now)
	if wait == 0 {
		return nil
	}
	r.CancelAt(now)
	return &posthorn.Error{
		Code:       posthorn.RateLimited,
		Message:    fmt.Sprintf("The tenant publishes more than %g events a second; wait and try again.", s.cfg.RatePerSecond),
		RetryAfter: wait,
	}
}

// explain makes an error of the store one for users. *store.ErrRepeated is none:
// the API answers it.
func (s *Service) explain(err error, pointer func(i int) string) error {
	if conflict, ok := errors.AsType[*store.EventConflict](err); ok {
		return &posthorn.Error{
			Code:    posthorn.Conflict,
			Message: "The id was used for another event; an id is for one type, data and deliver_at.",
			Faults: []posthorn.Fault{{
				Pointer: place{pointer, conflict.Index}.String() + "/id",
				Detail:  "was used before with other content",
			}},
		}
	}
	switch {
	case errors.Is(err, store.ErrOnceReused):
		return posthorn.Errorf(posthorn.Invalid, "The Idempotency-Key was used for another request; use a new one for each.")
	case errors.Is(err, store.ErrOverloaded):
		return unavailable("More is being published than can be stored; try again.", time.Second)
	case errors.Is(err, store.ErrFull):
		return unavailable("There is no room to store events until an operator makes some; try again.", 30*time.Second)
	case errors.Is(err, store.ErrUnsettled):
		return unavailable("The database did not answer in time, and it is not known yet whether the events were stored; repeat the request with the same ids or Idempotency-Key.", 5*time.Second)
	case errors.Is(err, store.ErrUnavailable):
		return unavailable("Events cannot be stored now; try again.", 5*time.Second)
	case errors.Is(err, store.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return unavailable("The request was broken off before anything was stored; try again.", time.Second)
	case errors.Is(err, store.ErrNotFound):
		return posthorn.Errorf(posthorn.NotFound, "The tenant is not there any more.")
	}
	return err
}

func unavailable(message string, after time.Duration) error {
	return &posthorn.Error{Code: posthorn.Unavailable, Message: message, RetryAfter: after}
}
