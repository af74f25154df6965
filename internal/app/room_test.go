package app

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/secretbox"
)

// TestATenantsBytesAreBounded has one tenant keep what it may, on each store: it is
// refused then, another one is not, and what was kept is known after a restart.
func TestATenantsBytesAreBounded(t *testing.T) {
	each := onEachStore
	if !long() { // storetest counts on both
		each = func(t *testing.T, test func(*testing.T, string)) { test(t, filepath.Join(t.TempDir(), "posthorn.db")) }
	}
	each(t, func(t *testing.T, path string) {
		event := client.Event{Type: "cases.updated", Data: []byte(`{"text":"` + strings.Repeat("x", 4000) + `"}`)}
		send := func(api *client.Client, want int) {
			t.Helper()
			_, err := api.Send(t.Context(), event)
			e, refused := errors.AsType[*client.Error](err)
			switch {
			case want == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case want != 0 && (!refused || e.Status != want || !strings.Contains(e.Error(), "may keep 10.0 KiB")):
				t.Errorf("got %v, want %d", err, want)
			}
		}
		settings := []string{"POSTHORN_TENANT_BYTES=10KiB", "POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")}
		s := serveOn(t, path, settings...)
		acme, other := s.token(t, "acme"), s.token(t, "other")
		send(s.partner(t, acme), 0)
		send(s.partner(t, acme), 0)
		send(s.partner(t, acme), 429)
		send(s.partner(t, other), 0)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		s = serveOn(t, path, settings...)
		send(s.partner(t, acme), 429)
		send(s.partner(t, other), 0)
	})
}
