package soak

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
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

func (w *world) erase(ctx context.Context) error {
	tn := w.anyTenant()
	id := w.ledger.take(tn.name, true)
	if id == "" {
		return errNothing
	}
	return tn.api.Call(ctx, http.MethodDelete, "/events/"+id+"/payload", nil, nil)
}

// export downloads one as a whole.
func (w *world) export(ctx context.Context) error {
	tn := w.anyTenant()
	since := time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)
	var made struct {
		ID string `json:"id"`
	}
	if err := tn.api.Call(ctx, http.MethodPost, "/exports", fmt.Appendf(nil, `{"since":%q}`, since), &made); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, tn.api.URL+proof.Base+"/exports/"+made.ID+"/content", nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+tn.api.Token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	last := ""
	for in.Scan() {
		last = in.Text()
	}
	if err := in.Err(); err == nil && !strings.HasPrefix(last, `{"end":`) {
		return fmt.Errorf("it was cut short: %d, %.100s", resp.StatusCode, last)
	}
	return in.Err()
}

// look reads what pages and programs read.
func (w *world) look(ctx context.Context) error {
	tn := w.anyTenant()
	e := "/endpoints/" + tn.endpoints[orderly[w.pick(len(orderly))]].ID
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	for _, path := range []string{"/endpoints", "/events?limit=250", "/deliveries?limit=250", "/deliveries?state=failed", "/events?type=cases.tasks.*&since=" + since,
		"/stats?since=" + since, e + "/health", e + "/stats?since=" + since, e + "/secret", e + "/settings", "/audit", "/replays", "/event-types"} {
		if err := tn.api.Call(ctx, http.MethodGet, path, nil, nil); err != nil {
			return err
		}
	}
	for _, path := range []string{"/tenants", "/tokens", "/deletions", "/audit"} {
		if err := w.platform.Call(ctx, http.MethodGet, path, nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) token(ctx context.Context) error {
	made, err := w.mint(ctx, w.anyTenant().name)
	if err != nil {
		return err
	}
	a := proof.API{URL: w.server.URL(), Token: made.Token, HTTP: w.platform.HTTP}
	if err := a.Call(ctx, http.MethodGet, "/endpoints", nil, nil); err != nil {
		return err
	}
	return w.platform.Call(ctx, http.MethodDelete, "/tokens/"+made.ID, nil, nil)
}

type minted struct {
	ID    string `json:"id"`
	Token string `json:"token"`
}

// mint makes a token of a tenant.
func (w *world) mint(ctx context.Context, tenant string) (made minted, err error) {
	body := fmt.Sprintf(`{"tenant":%q,"name":"soak","scopes":["webhooks:read","webhooks:write","events:publish"]}`, tenant)
	err = w.platform.Call(ctx, http.MethodPost, "/tokens", []byte(body), &made)
	return made, err
}

// visit has a tenant come, be sent something, and be deleted.
func (w *world) visit(ctx context.Context) error {
	name := fmt.Sprintf("visitor-%d", w.pick(1<<30))
	if err := w.platform.Call(ctx, http.MethodPost, "/tenants", fmt.Appendf(nil, `{"name":%q}`, name), nil); err != nil {
		return err
	}
	made, err := w.mint(ctx, name)
	if err != nil {
		return err
	}
	tn := &tenant{name: name, endpoints: map[kind]proof.Endpoint{}, api: proof.API{URL: w.server.URL(), Token: made.Token, HTTP: w.platform.HTTP}}
	if err := w.open(ctx, tn, steady); err != nil {
		return err
	}
	const events = 10
	for n := range events {
		if err := w.publish(ctx, tn, n, "cases.updated", "", false); err != nil {
			return err
		}
	}
	err = proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		var rows []row
		err := tn.api.Call(ctx, http.MethodGet, "/deliveries?state=succeeded", nil, &rows)
		return len(rows) == events, err
	})
	if err != nil {
		return err
	}
	if err := w.platform.Call(ctx, http.MethodDelete, "/tenants/"+name, nil, nil); err != nil {
		return err
	}
	w.ledger.forget(name)
	w.shut("/" + name + "/steady")
	return nil
}

// stall begins a stream, reads its first events, stops reading for a while, and goes on
// from there on another connection.
func (w *world) stall(ctx context.Context) error {
	tn := w.anyTenant()
	last := ""
	for range 2 {
		ctx, cancel := context.WithCancel(ctx)
		err := func() error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, tn.api.URL+proof.Base+"/stream", nil)
			if err != nil {
				return err
			}
			req.Header.Set("Authorization", "Bearer "+tn.api.Token)
			if last != "" {
				req.Header.Set("Last-Event-ID", last)
			}
			resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, ReadBufferSize: 4 << 10}}).Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != http.StatusOK {
				return fmt.Errorf("GET /stream: %s", resp.Status)
			}
			in := bufio.NewScanner(resp.Body)
			for ids := 0; ids < 5 && in.Scan(); {
				if id, ok := strings.CutPrefix(in.Text(), "id: "); ok {
					last = id
					ids++
				}
			}
			if err := in.Err(); err != nil {
				return err
			}
			w.linger(time.Duration(20+w.pick(40)) * time.Second)
			return nil
		}()
		cancel()
		if err != nil {
			return err
		}
	}
	return nil
}

// backup copies the store by the command, and throws the copy away.
func (w *world) backup(ctx context.Context) error {
	to := filepath.Join(filepath.Dir(w.server.File()), "backup.db")
	if _, err := w.server.Command(ctx, "store", "backup", to); err != nil {
		return err
	}
	return os.Remove(to)
}
