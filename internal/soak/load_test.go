package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
)

// types are those of the orderly tenants' events, one after the other.
var types = []string{
	"cases.updated", "cases.updated", "cases.tasks.created", "assignments.updated",
	"cases.updated", "cases.closed", "cases.updated", "cases.created",
}

const publishers = 12

// startLoad publishes at a steady rate, each event until it is answered 202.
func (w *world) startLoad(ctx context.Context) *proof.Pace {
	return proof.Steady(*rate, publishers, func(n int) error {
		tn := w.tenants[n%len(w.tenants)]
		more := ""
		if n%40 == 7 {
			more = fmt.Sprintf(`,"deliver_at":%q`, posthorn.FormatTime(time.Now().Add(2*time.Second)))
		}
		return w.publish(ctx, tn, n, types[n/len(w.tenants)%len(types)], more, n%100 == 9)
	})
}

// publish publishes an event of a tenant's, and the same once more where it is to be.
func (w *world) publish(ctx context.Context, tn *tenant, n int, kind, more string, twice bool) error {
	id := fmt.Sprintf("s-%x-%d", *seed, n)
	w.ledger.add(tn.name, id, n)
	body := fmt.Appendf(nil, `{"id":"%s","type":"%s","data":%s%s}`, id, kind, dataOf(tn.name, n), more)
	for times := 0; ; {
		deliveries, err := post(ctx, tn.api, body)
		if err == nil {
			w.ledger.accept(tn.name, id, deliveries)
			if times++; twice && times == 1 {
				continue
			}
			return nil
		}
		// The refusals that a publisher may meet; it asks again.
		s, ok := errors.AsType[*proof.Status](err)
		if !ok || s.RetryAfter == "" || s.Code != http.StatusServiceUnavailable && s.Code != http.StatusTooManyRequests {
			return err
		}
		w.note("publish", err)
		if err := wait(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

func post(ctx context.Context, api proof.API, body []byte) (deliveries int, err error) {
	var answer struct {
		Deliveries int `json:"deliveries"`
	}
	err = api.Call(ctx, http.MethodPost, "/events", body, &answer)
	return answer.Deliveries, err
}
