package app

import (
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// What "token list" shows comes from the store: the uses of a stopped service stand
// there, and the end of each token.
func TestTokensShowTheirEndAndLastUseAfterAStop(t *testing.T) {
	s := serveForTest(t)
	admin, err := OpenStore(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	by := store.Change{Actor: "test", At: time.Now().UTC()}
	ends := by.At.Add(time.Hour).Truncate(time.Millisecond)
	text, hash := access.NewToken()
	made, err := admin.CreateToken(t.Context(), by, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, by.At), Hash: hash, CreatedAt: by.At, ExpiresAt: ends, Scopes: []string{access.ScopeAdmin},
	})
	if err != nil {
		t.Fatal(err)
	}
	root, err := client.New(client.Config{Server: s.base, Token: text})
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for tok, err := range root.Tokens(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		if seen++; tok.ID != made.Ref || !tok.ExpiresAt.Equal(ends) {
			t.Errorf("listed: %+v", tok)
		}
	}
	if seen != 1 {
		t.Errorf("%d tokens are listed", seen)
	}
	// A token that it makes without an end ends with it.
	child, err := root.CreateToken(t.Context(), client.NewToken{Scopes: []string{access.ScopeAdmin}})
	if err != nil || !child.ExpiresAt.Equal(ends) {
		t.Errorf("a token made by it: %+v, %v", child, err)
	}
	if _, err := root.CreateToken(t.Context(), client.NewToken{Scopes: []string{access.ScopeAdmin}, ExpiresAt: ends.Add(time.Second)}); status(err) != 422 {
		t.Errorf("one that outlives it: %v", err)
	}
	if _, err := root.CreateToken(t.Context(), client.NewToken{Scopes: []string{access.ScopePublish}}); status(err) != 403 {
		t.Errorf("one that can do more: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	got, err := admin.TokenByHash(t.Context(), hash)
	if err != nil || got.LastUsedAt.Before(by.At.Truncate(time.Millisecond)) || !got.ExpiresAt.Equal(ends) {
		t.Errorf("after the stop: %+v, %v", got, err)
	}
}
