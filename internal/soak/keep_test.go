package soak

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

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
