package app

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// reads makes a token that may read every tenant's.
func (s *service) reads(t *testing.T) string {
	t.Helper()
	admin := must(OpenStore(t.Context(), s.path))(t)
	defer admin.Close()
	text, hash := access.NewToken()
	must(admin.CreateToken(t.Context(), store.Change{Actor: "test", At: time.Now()}, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, time.Now()), Hash: hash, CreatedAt: time.Now(), Scopes: []string{access.ScopeRead},
	}))(t)
	return text
}

// A stream that a platform's token reads ends with its tenant, on every node and whoever
// deletes it, and whoever follows is told why: that there is no such tenant.
func TestAStreamEndsWithItsTenantOnEveryNode(t *testing.T) {
	keys := "POSTHORN_ENCRYPTION_KEYS=k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for _, name := range []string{"sqlite", "postgres"} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "posthorn.db")
			if name == "postgres" {
				path = pgtest.Database(t, "")
			}
			nodes := []*service{serveOn(t, path, keys)}
			if name == "postgres" {
				nodes = append(nodes, serveOn(t, path, keys))
			}
			token := nodes[0].reads(t)
			for _, tc := range []struct {
				what string
				end  func(t *testing.T, tenant posthorn.Tenant, admin store.Store)
			}{
				{"deleted", func(t *testing.T, tenant posthorn.Tenant, admin store.Store) {
					if err := admin.DeleteTenant(t.Context(), store.Change{Actor: "test", At: time.Now()}, tenant.ID); err != nil {
						t.Fatal(err)
					}
				}},
				{"suspended-and-deleted", func(t *testing.T, tenant posthorn.Tenant, admin store.Store) {
					change := store.Change{Actor: "test", At: time.Now()}
					must(admin.SuspendTenant(t.Context(), change, tenant.ID, true))(t)
					if err := admin.DeleteTenant(t.Context(), change, tenant.ID); err != nil {
						t.Fatal(err)
					}
				}},
			} {
				nodes[0].token(t, tc.what)
				admin := must(OpenStore(t.Context(), path))(t)
				tenant := must(admin.TenantByName(t.Context(), tc.what))(t)
				var ended []chan error
				for _, node := range nodes {
					ended = append(ended, followTenant(t, node, token, tc.what))
				}
				began := time.Now()
				tc.end(t, tenant, admin)
				for i, end := range ended {
					err := <-end
					if e, ok := errors.AsType[*client.Error](err); !ok || e.Status != 404 {
						t.Errorf("%s, node %d: it ended with %v", tc.what, i, err)
					}
					if took := time.Since(began); took > 3*time.Second {
						t.Errorf("%s, node %d: it ended after %s", tc.what, i, took)
					}
				}
				if err := admin.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// followTenant follows a tenant's stream, and returns when it is connected.
func followTenant(t *testing.T, s *service, token, tenant string) chan error {
	t.Helper()
	api := must(client.New(client.Config{Server: s.base, Token: token, Tenant: tenant}))(t)
	connected, ended := make(chan struct{}, 100), make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	go func() {
		for _, err := range api.Stream(ctx, client.StreamOptions{Changed: func(why error) {
			if why == nil {
				connected <- struct{}{}
			}
		}}) {
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	select {
	case <-connected:
	case err := <-ended:
		t.Fatal(err)
	}
	return ended
}
