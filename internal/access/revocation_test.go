package access_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// openStore opens the real store; synchronous is off, for the machine will not
// stop.
func openStore(t *testing.T, path string, role sqlite.Role) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Role: role, Synchronous: "OFF"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// What an operator does is felt when the call returns, and, from another
// process, when the store tells of it.
func TestOperatorsChangesAreFelt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	server := openStore(t, path, sqlite.Serve)
	auth := access.New(access.Config{Store: server, Now: time.Now})
	noticed := make(chan struct{}, 100)
	server.Watch(func(n store.Notice) {
		auth.Notice(n)
		select {
		case noticed <- struct{}{}:
		default:
		}
	})
	change := store.Change{Actor: "cli", At: time.Now()}
	ctx := t.Context()
	tenant, err := server.CreateTenant(ctx, change, "acme")
	if err != nil {
		t.Fatal(err)
	}
	create := func(s *sqlite.Store, tenant int64, expires time.Time) (text, ref string) {
		text, hash := access.NewToken()
		token, err := s.CreateToken(ctx, change, store.Token{
			Ref: posthorn.NewRef(posthorn.TokenPrefix, change.At), Tenant: tenant, Name: "test",
			Hash: hash, Scopes: access.DefaultScopes(), CreatedAt: change.At, ExpiresAt: expires,
		})
		if err != nil {
			t.Fatal(err)
		}
		return text, token.Ref
	}
	try := func(text string) (*access.Principal, error) {
		return auth.Authenticate(context.Background(), []string{"Bearer " + text}, local)
	}

	first, ref := create(server, tenant.ID, time.Time{})
	p, err := try(first)
	if err != nil || p.Tenant.Name != "acme" || p.TokenRef != ref || !p.Has(access.ScopeWrite) || p.Has(access.ScopePublish) {
		t.Fatalf("principal = %+v, %v", p, err)
	}
	if _, err := server.SuspendTenant(ctx, change, tenant.ID, true); err != nil {
		t.Fatal(err)
	}
	if p, err := try(first); err != nil || !p.Tenant.Suspended() {
		t.Errorf("after the suspension: %+v, %v", p, err)
	}
	if err := server.DeleteToken(ctx, change, tenant.ID, ref); err != nil {
		t.Fatal(err)
	}
	if _, err := try(first); posthorn.ErrorCode(err) != posthorn.Unauthorized {
		t.Errorf("after the revocation: %v", err)
	}

	expiring, _ := create(server, 0, change.At)
	if _, err := try(expiring); posthorn.ErrorCode(err) != posthorn.Unauthorized {
		t.Errorf("an expired token: %v", err)
	}

	admin := openStore(t, path, sqlite.Admin)
	second, ref := create(admin, tenant.ID, time.Time{})
	if _, err := try(second); err != nil {
		t.Errorf("a token made by another process: %v", err)
	}
	if err := admin.DeleteToken(ctx, change, -1, ref); err != nil {
		t.Fatal(err)
	}
	for deadline := time.After(10 * time.Second); ; {
		if _, err := try(second); posthorn.ErrorCode(err) == posthorn.Unauthorized {
			break
		}
		select {
		case <-noticed:
		case <-deadline:
			t.Fatal("a token revoked by another process is still good")
		}
	}

	third, _ := create(server, tenant.ID, time.Time{})
	if _, err := try(third); err != nil {
		t.Fatal(err)
	}
	if err := auth.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	tokens, err := server.Tokens(ctx, tenant.ID, 0, 1)
	if err != nil || len(tokens) != 1 || tokens[0].LastUsedAt.Before(change.At.Truncate(time.Second)) {
		t.Errorf("last use: %+v, %v", tokens, err)
	}
	if err := server.DeleteTenant(ctx, change, tenant.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := try(third); posthorn.ErrorCode(err) != posthorn.Unauthorized {
		t.Errorf("after the tenant's deletion: %v", err)
	}
}
