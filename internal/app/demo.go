package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/api"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/webhook"
)

// demo is what dev sets up so that there is something to see at once.
type demo struct {
	tenant   posthorn.Tenant
	token    string
	endpoint posthorn.Endpoint
	base     string // http://127.0.0.1:8420
	inbox    string // http://127.0.0.1:8422
}

// setUpDemo makes the demo tenant, its token and its endpoint, or finds those of
// an earlier run, and gives the inbox the endpoint's secret.
func (n *node) setUpDemo(ctx context.Context, dir string, in *inbox) (*demo, error) {
	d := &demo{base: "http://" + n.listener.Addr().String(), inbox: "http://" + in.addr()}
	var err error
	if d.tenant, err = n.store.TenantByName(ctx, devTenant); errors.Is(err, store.ErrNotFound) {
		d.tenant, err = n.store.CreateTenant(ctx, n.devChange(), devTenant)
	}
	if err != nil {
		return nil, err
	}
	if d.token, err = n.devToken(ctx, d.tenant, filepath.Join(dir, "token")); err != nil {
		return nil, err
	}
	secret, err := n.devEndpoint(ctx, d, in)
	if err != nil {
		return nil, err
	}
	return d, in.trust(secret)
}

func (n *node) devChange() store.Change { return store.Change{Actor: "dev", At: n.now()} }

// devToken returns the token of the last run if the store still knows it.
func (n *node) devToken(ctx context.Context, tenant posthorn.Tenant, file string) (string, error) {
	if text, err := os.ReadFile(file); err == nil {
		if hash, ok := access.HashToken(strings.TrimSpace(string(text))); ok {
			if _, err := n.store.TokenByHash(ctx, hash); err == nil {
				return strings.TrimSpace(string(text)), nil
			}
		}
	}
	text, hash := access.NewToken()
	_, err := n.store.CreateToken(ctx, n.devChange(), store.Token{
		Ref:       posthorn.NewRef(posthorn.TokenPrefix, n.now()),
		Tenant:    tenant.ID,
		Name:      "posthorn dev",
		Hash:      hash,
		Scopes:    []string{access.ScopeRead, access.ScopeWrite, access.ScopePublish},
		CreatedAt: n.now(),
	})
	if err != nil {
		return "", err
	}
	return text, os.WriteFile(file, []byte(text+"\n"), 0o600)
}

// devEndpoint finds or makes the inbox's endpoint, points it to where the inbox
// listens today, and returns its secret.
func (n *node) devEndpoint(ctx context.Context, d *demo, in *inbox) (secret string, err error) {
	url := "http://" + in.addr() + "/inbox"
	known, err := n.store.EndpointsOf(ctx, d.tenant.ID, "", 0)
	if err != nil {
		return "", err
	}
	for _, e := range known {
		if e.Description != devInboxLabel {
			continue
		}
		d.endpoint, err = n.store.UpdateEndpoint(ctx, n.devChange(), d.tenant.ID, e.Ref, 0, func(e *posthorn.Endpoint) error {
			e.URL, e.UpdatedAt = url, n.now()
			return nil
		})
		if err != nil {
			return "", err
		}
		return n.revealSecret(ctx, d.endpoint)
	}
	secret = webhook.NewSecret()
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		return "", err
	}
	d.endpoint, err = n.store.CreateEndpoint(ctx, n.devChange(), posthorn.Endpoint{
		Ref: posthorn.NewRef(posthorn.EndpointPrefix, n.now()), Tenant: d.tenant.ID, URL: url, Description: devInboxLabel,
		Events: []posthorn.Pattern{"cases.*", "assignments.*"}, Status: posthorn.StatusActive, CreatedAt: n.now(), UpdatedAt: n.now(),
	}, func(id int64) (store.Sealed, error) {
		keyID, box := n.keys.Seal(key, secretbox.Bind{Kind: api.SecretKind, Tenant: d.tenant.ID, Endpoint: id})
		return store.Sealed{KeyID: keyID, Box: box, CreatedAt: n.now()}, nil
	}, n.cfg.MaxEndpoints)
	return secret, err
}

func (n *node) revealSecret(ctx context.Context, e posthorn.Endpoint) (string, error) {
	t, err := n.store.Target(ctx, e.ID)
	if err != nil {
		return "", err
	}
	if len(t.Secrets) == 0 {
		return "", fmt.Errorf("the inbox's endpoint %s has no secret; run dev with --reset", e.Ref)
	}
	s := t.Secrets[0]
	key, err := n.keys.Open(s.KeyID, s.Box, secretbox.Bind{Kind: api.SecretKind, Tenant: e.Tenant, Endpoint: e.ID})
	if err != nil {
		return "", fmt.Errorf("%w; was the key in the dev folder replaced? run dev with --reset", err)
	}
	return webhook.FormatSecret(key), nil
}

// devKey reads dev's encryption key, or makes it.
func devKey(file string) (string, error) {
	spec, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		made := secretbox.Generate("dev")
		return made, os.WriteFile(file, []byte(made+"\n"), 0o600)
	}
	return strings.TrimSpace(string(spec)), err
}

// greet tells what there is and what to try.
func (d *demo) greet(out io.Writer, dir string) {
	fmt.Fprintf(out, `Posthorn dev: a whole service on this machine, for trying out.

  API     %[1]s/v2.3/webhooks   described at %[1]s/docs
  Tenant  %[2]s
  Token   %[3]s
  Inbox   %[4]s/inbox   verifies each signature and answers 204
  Data    %[5]s   kept for the next run; --reset begins anew

Try in another terminal:

  export POSTHORN_SERVER=%[1]s POSTHORN_TOKEN=%[3]s
  go run ./cmd/posthorn trigger cases.created
  go run ./cmd/posthorn delivery list
  curl -H "Authorization: Bearer $POSTHORN_TOKEN" -H "Content-Type: application/json" \
    -d '{"type":"cases.updated","data":{"id":590,"type":"relocation"}}' $POSTHORN_SERVER/v2.3/webhooks/events

Break the inbox for 20 seconds and watch the attempts come again:

  curl -X POST '%[4]s/fail?for=20s'

Deliveries as the inbox receives them (Ctrl-C ends):

`, d.base, d.tenant.Name, d.token, d.inbox, dir)
}

// sendSamples publishes the catalogue's examples in turn, the first at once.
func (n *node) sendSamples(ctx context.Context, tenant posthorn.Tenant, every time.Duration) {
	samples := n.samples()
	tick := time.NewTicker(every)
	defer tick.Stop()
	for i := rand.IntN(len(samples)); ; i++ {
		t := samples[i%len(samples)]
		_, err := n.publish.Publish(ctx, tenant, []publish.Event{{Type: t.Name, Data: t.Example}}, func(int) string { return "" }, nil, nil)
		if err != nil && ctx.Err() == nil {
			n.log.Error("a sample event was not accepted", "type", t.Name, "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// samples are the catalogue's types that may be published, with an example.
func (n *node) samples() []catalog.Type {
	var s []catalog.Type
	for _, t := range n.catalog.Types() {
		if n.catalog.Publishable(t.Name) && len(t.Example) > 0 {
			s = append(s, t)
		}
	}
	return s
}
