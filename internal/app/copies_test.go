package app

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// moody is a receiver that answers 503 until it is mended, and remembers what it
// took.
type moody struct {
	*httptest.Server
	mended atomic.Bool
	mu     sync.Mutex
	took   []string
}

func newMoody(t *testing.T) *moody {
	m := &moody{}
	m.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !m.mended.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.took = append(m.took, r.Header.Get("webhook-id"))
	}))
	t.Cleanup(m.Close)
	return m
}

func (m *moody) has(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, got := range m.took {
		if got == id {
			return true
		}
	}
	return false
}

// waiting starts a service with deliveries that wait for their second attempt.
func waiting(t *testing.T, to *moody, keys string) (s *service, api *client.Client, ids []string) {
	t.Helper()
	s = serveForTest(t, "POSTHORN_ENCRYPTION_KEYS="+keys, "POSTHORN_RETRY_SCHEDULE=5s", "POSTHORN_RETRY_JITTER=0")
	api = s.tenant(t, "acme")
	if _, err := api.CreateEndpoint(t.Context(), client.NewEndpoint{URL: to.URL, Events: []string{"cases.*"}}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		a, err := api.Send(t.Context(), client.Event{ID: fmt.Sprint("e", i), Type: "cases.updated", Data: []byte(`{"n":1}`)})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, a.ID)
	}
	eventually(t, "a first attempt of each", func() bool {
		n := 0
		for d, err := range api.Deliveries(t.Context(), client.DeliveryFilter{}) {
			if err == nil && d.AttemptsMade > 0 {
				n++
			}
		}
		return n == 3
	})
	return s, api, ids
}

func TestRestoredServiceSendsNothingUntilItIsTold(t *testing.T) {
	to, keys := newMoody(t), secretbox.Generate("k1")
	s, _, ids := waiting(t, to, keys)
	backup := filepath.Join(t.TempDir(), "backup.db")
	if inv, err := Backup(t.Context(), s.path, backup, nil); err != nil || inv.Open != 3 {
		t.Fatalf("%+v, %v", inv, err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "restored.db")
	if _, _, err := Restore(t.Context(), backup, path); err != nil {
		t.Fatal(err)
	}
	to.mended.Store(true)
	s = serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+keys)
	for _, part := range []string{"sending is paused", `"open":3`, "posthorn sending resume", "restored_from_backup_of"} {
		if !strings.Contains(s.log.String(), part) {
			t.Errorf("the log does not say %s:\n%s", part, s.log)
		}
	}
	api, platform := s.tenant(t, "acme"), s.platform(t)
	late, err := api.Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(`{"n":2}`)})
	if err != nil {
		t.Fatal(err)
	}
	if to.has(ids[0]) || to.has(late.ID) {
		t.Error("it sent before it was told to")
	}
	if _, err := platform.ResumeSending(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, id := range append(ids, late.ID) {
		eventually(t, "the delivery of "+id, func() bool { return to.has(id) })
	}
}

func TestCopiedServiceDeliversFromPostgreSQLWhatWasOpen(t *testing.T) {
	url := pgtest.Database(t, "")
	to, keys := newMoody(t), secretbox.Generate("k1")
	s, _, ids := waiting(t, to, keys)
	if _, err := Copy(t.Context(), s.path, url, nil); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("the file of a running service was copied: %v", err)
	}
	token := s.token(t, "acme")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := Copy(t.Context(), s.path, url, nil); err != nil {
		t.Fatal(err)
	}
	to.mended.Store(true)
	moved := serveStore(t, "", "POSTHORN_STORE="+url, "POSTHORN_ENCRYPTION_KEYS="+keys)
	for _, id := range ids {
		eventually(t, "the delivery of "+id, func() bool { return to.has(id) })
	}
	api, err := client.New(client.Config{Server: moved.base, Token: token})
	if err != nil {
		t.Fatal(err)
	}
	again, err := api.Send(t.Context(), client.Event{ID: ids[0], Type: "cases.updated", Data: []byte(`{"n":1}`)})
	if err != nil || again.ID != ids[0] {
		t.Errorf("%+v, %v", again, err)
	}
	e, err := api.Event(t.Context(), ids[0])
	if err != nil || string(e.Data) != `{"n":1}` || len(e.DeliveryLog) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
}

// platform is a client that may do what operators may.
func (s *service) platform(t *testing.T) *client.Client {
	t.Helper()
	admin, err := OpenStore(t.Context(), s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	text, hash := access.NewToken()
	at := time.Now()
	if _, err := admin.CreateToken(t.Context(), store.Change{Actor: "test", At: at}, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, at), Hash: hash, CreatedAt: at, Scopes: []string{access.ScopeAdmin},
	}); err != nil {
		t.Fatal(err)
	}
	api, err := client.New(client.Config{Server: s.base, Token: text})
	if err != nil {
		t.Fatal(err)
	}
	return api
}
