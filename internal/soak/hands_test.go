package soak

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// hands is what people and their programs do to the orderly tenants.
func (w *world) hands() []act {
	gone := []int{http.StatusConflict} // in flight, or there is nothing to be done any more
	acts := []act{
		{name: "an endpoint comes, changes, goes", every: 7 * time.Second, do: w.churn},
		{name: "pause and resume", every: 20 * time.Second, do: w.toggle, may: gone},
		{name: "a receiver is down", every: time.Minute, do: w.outage},
		{name: "settings", every: 15 * time.Second, do: w.resettle},
		{name: "rotate a secret", every: 20 * time.Second, do: w.rotate},
		{name: "retry a delivery", every: 3 * time.Second, do: w.retry, may: gone},
		{name: "cancel a delivery", every: 5 * time.Second, do: w.cancel, may: gone},
		{name: "retry an attempt's delivery", every: 10 * time.Second, do: w.hurry, may: gone},
		{name: "resend an event", every: 10 * time.Second, do: w.resend, may: gone},
		{name: "cancel an event", every: 15 * time.Second, do: w.cancelEvent, may: gone},
		{name: "replay", every: 45 * time.Second, do: w.replay, may: gone},
		{name: "test an endpoint", every: 20 * time.Second, do: w.try, may: []int{http.StatusTooManyRequests}},
		{name: "erase a payload", every: 20 * time.Second, do: w.erase},
		{name: "export", every: time.Minute, do: w.export},
		{name: "look at lists", every: 2 * time.Second, do: w.look},
		{name: "a token comes and goes", every: 30 * time.Second, do: w.token},
		{name: "a tenant comes and goes", every: 40 * time.Second, do: w.visit},
		{name: "a stream is not read", every: 10 * time.Second, do: w.stall},
	}
	if w.db == nil {
		acts = append(acts, act{name: "backup", every: 3 * time.Minute, do: w.backup})
	}
	return acts
}

func (w *world) churn(ctx context.Context) error {
	tn := w.anyTenant()
	name := fmt.Sprintf("fluid-%d", w.pick(1<<30))
	path := "/" + tn.name + "/" + name
	e, err := w.openAs(ctx, tn, name, fluid)
	if err != nil {
		return err
	}
	w.linger(3 * time.Second)
	at := "/endpoints/" + e.ID
	if err := w.turn(ctx, tn, path, e.ID, `{}`); err != nil {
		return err
	}
	moved := path + "-moved"
	w.door(moved, tn, fluid).trusts(e.Secret)
	w.sameKeys(path, moved)
	change := fmt.Sprintf(`{"url":%q,"description":"moved","events":["cases.*","assignments.*"]}`, w.receivers+moved)
	if err := tn.api.Call(ctx, http.MethodPatch, at, []byte(change), nil); err != nil {
		return err
	}
	w.linger(3 * time.Second)
	if err := tn.api.Call(ctx, http.MethodDelete, at, nil, nil); err != nil {
		return err
	}
	// Attempts that were in flight end.
	w.linger(2 * time.Second)
	return nil
}

func (w *world) toggle(ctx context.Context) error {
	tn := w.anyTenant()
	id := tn.endpoints[toggled].ID
	if err := tn.api.SetStatus(ctx, id, "paused"); err != nil {
		return err
	}
	w.linger(min(5*time.Second, w.span/10))
	if w.pick(3) == 0 {
		if err := tn.api.Call(ctx, http.MethodPost, "/endpoints/"+id+"/cancel-pending", []byte(`{}`), nil); err != nil {
			return err
		}
	}
	return tn.api.SetStatus(ctx, id, "active")
}

// outage has the moody receivers fail for a while: attempts fail, the breaker opens, and
// some deliveries fail for good.
func (w *world) outage(context.Context) error {
	w.mood.down.Store(true)
	w.linger(min(20*time.Second, w.span/4))
	w.mood.down.Store(false)
	return nil
}

func (w *world) resettle(ctx context.Context) error {
	tn := w.anyTenant()
	at := "/endpoints/" + tn.endpoints[[...]kind{flaky, slow}[w.pick(2)]].ID + "/settings"
	some := `{"rate_per_second":20,"max_in_flight":8,"filter":"data.n % 2 == 0","headers":{"X-Soak":"1"}}`
	if err := tn.api.Call(ctx, http.MethodPatch, at, []byte(some), nil); err != nil {
		return err
	}
	w.linger(4 * time.Second)
	return tn.api.Call(ctx, http.MethodPatch, at, []byte(`{"rate_per_second":null,"max_in_flight":null,"filter":null,"headers":null}`), nil)
}

func (w *world) rotate(ctx context.Context) error {
	tn := w.anyTenant()
	return w.turn(ctx, tn, "/"+tn.name+"/steady", tn.endpoints[steady].ID, `{"overlap_seconds":5}`)
}

// turn rotates an endpoint's secret and has its receiver know the new one.
func (w *world) turn(ctx context.Context, tn *tenant, path, id, body string) error {
	var made struct {
		Secret string `json:"secret"`
	}
	err := tn.api.Call(ctx, http.MethodPost, "/endpoints/"+id+"/secret/rotate", []byte(body), &made)
	if err == nil {
		w.door(path, tn, "").trusts(made.Secret)
	}
	return err
}

// sameKeys has one receiver know what another one knows.
func (w *world) sameKeys(of, also string) {
	a, b := w.door(of, nil, ""), w.door(also, nil, "")
	a.mu.Lock()
	keys := a.keys
	a.mu.Unlock()
	b.mu.Lock()
	b.keys = keys
	b.mu.Unlock()
}
