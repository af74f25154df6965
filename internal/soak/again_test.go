package soak

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// row is a delivery of a list.
type row struct {
	ID       string `json:"id"`
	Event    string `json:"event"`
	Endpoint string `json:"endpoint"`
	State    string `json:"state"`
}

// one finds a delivery in some state; false for none.
func (w *world) one(ctx context.Context, tn *tenant, states ...string) (row, bool, error) {
	var rows []row
	state := states[w.pick(len(states))]
	err := tn.api.Call(ctx, http.MethodGet, "/deliveries?limit=100&state="+state, nil, &rows)
	if err != nil || len(rows) == 0 {
		return row{}, false, err
	}
	return rows[w.pick(len(rows))], true, nil
}

func (w *world) retry(ctx context.Context) error {
	return w.again(ctx, "succeeded", "failed", "canceled")
}

// hurry has a delivery that waits attempted now.
func (w *world) hurry(ctx context.Context) error { return w.again(ctx, "pending") }

func (w *world) again(ctx context.Context, states ...string) error {
	tn := w.anyTenant()
	d, ok, err := w.one(ctx, tn, states...)
	if err != nil {
		return err
	}
	if !ok || !w.ledger.byHand(tn.name, d.Event) {
		return errNothing
	}
	return tn.api.Call(ctx, http.MethodPost, "/deliveries/"+d.ID+"/retry", nil, nil)
}

func (w *world) cancel(ctx context.Context) error {
	tn := w.anyTenant()
	d, ok, err := w.one(ctx, tn, "pending", "held")
	if err != nil {
		return err
	}
	if !ok {
		return errNothing
	}
	return tn.api.Call(ctx, http.MethodPost, "/deliveries/"+d.ID+"/cancel", nil, nil)
}

func (w *world) resend(ctx context.Context) error {
	tn := w.anyTenant()
	id := w.ledger.take(tn.name, false)
	if id == "" {
		return errNothing
	}
	return tn.api.Call(ctx, http.MethodPost, "/events/"+id+"/resend", []byte(`{}`), nil)
}

func (w *world) cancelEvent(ctx context.Context) error {
	tn := w.anyTenant()
	d, ok, err := w.one(ctx, tn, "pending", "held")
	if err != nil {
		return err
	}
	if !ok {
		return errNothing
	}
	return tn.api.Call(ctx, http.MethodPost, "/events/"+d.Event+"/cancel", nil, nil)
}

func (w *world) replay(ctx context.Context) error {
	tn := w.anyTenant()
	at := "/endpoints/" + tn.endpoints[moody].ID + "/replays"
	since := time.Now().Add(-10 * time.Minute).UTC().Format(time.RFC3339)
	if w.pick(4) == 0 {
		return tn.api.Call(ctx, http.MethodPost, at, fmt.Appendf(nil, `{"since":%q,"dry_run":true}`, since), nil)
	}
	var r struct {
		ID    string `json:"id"`
		State string `json:"state"`
	}
	if err := tn.api.Call(ctx, http.MethodPost, at, fmt.Appendf(nil, `{"since":%q,"rate_per_second":20}`, since), &r); err != nil {
		return err
	}
	if r.ID == "" {
		return errNothing
	}
	for _, verb := range []string{"pause", "resume", "cancel"}[:2+w.pick(2)] {
		err := tn.api.Call(ctx, http.MethodPost, "/replays/"+r.ID+"/"+verb, nil, nil)
		if s, ok := errors.AsType[*proof.Status](err); ok && s.Code == http.StatusConflict {
			return nil // it has finished
		}
		if err != nil {
			return err
		}
		w.linger(time.Second)
	}
	return nil
}

func (w *world) try(ctx context.Context) error {
	tn := w.anyTenant()
	k := orderly[w.pick(len(orderly))]
	return tn.api.Call(ctx, http.MethodPost, "/endpoints/"+tn.endpoints[k].ID+"/test", []byte(`{}`), nil)
}
