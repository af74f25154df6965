package postgres_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// filesWith lists the relations' files that hold a text.
func filesWith(t *testing.T, text []byte) (names []string) {
	t.Helper()
	dir := filepath.Join(pgtest.Socket(t), "data", "base")
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil // files come and go
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, text) {
			names = append(names, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// What docs/operating.md says has to be done for the bytes of an erased payload
// to leave the tables' files.
func TestErasedPayloadLeavesTheTablesWithTheDocumentedCommands(t *testing.T) {
	if pgtest.Socket(t) == "" {
		t.Skip("the server's files cannot be read: it is not the tests' own")
	}
	h := newHistory(t)
	var b [24]byte
	rand.Read(b[:])
	mark := hex.AppendEncode(nil, b[:])
	id := h.publish("k", `{"name":"`+string(mark)+`"}`)
	kept := h.publish("", `{"n":1}`)
	command := func(query string) {
		t.Helper()
		c, err := pgx.Connect(t.Context(), h.url)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(context.Background())
		if _, err := c.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	command(`CHECKPOINT`)
	if len(filesWith(t, mark)) == 0 {
		t.Fatal("the payload is not found before: the search is broken")
	}
	if _, err := h.s.ErasePayload(t.Context(), store.Change{Actor: "test", At: h.now}, h.e.Tenant, "k"); err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(tables(t, h.url)) {
		if strings.HasPrefix(name, "events_") {
			command(`VACUUM (FULL) posthorn.` + name)
		}
	}
	command(`CHECKPOINT`)
	if left := filesWith(t, mark); left != nil {
		t.Errorf("it is still in %v", left)
	}
	if body, err := h.s.Payload(t.Context(), kept); err != nil || len(body) == 0 {
		t.Errorf("another payload: %q, %v", body, err)
	}
	if e, err := h.s.EventByRef(t.Context(), h.e.Tenant, "k"); err != nil || e.ID != id || e.Body != nil || e.Kind != posthorn.EventNormal {
		t.Errorf("%+v, %v", e, err)
	}
}

// Another node may have the payload in its memory.
func TestOtherNodesAreToldOfErasedPayloads(t *testing.T) {
	h := newHistory(t)
	other := open(t, postgres.Options{URL: h.url})
	told := make(chan store.Notice, 10)
	other.Watch(func(n store.Notice) {
		if n.Kind == store.NoticeErased {
			told <- n
		}
	})
	id := h.publish("k", `{"n":1}`, h.e)
	if _, err := h.s.ErasePayload(t.Context(), store.Change{Actor: "test", At: h.now}, h.e.Tenant, "k"); err != nil {
		t.Fatal(err)
	}
	select {
	case n := <-told:
		if n != (store.Notice{Kind: store.NoticeErased, Tenant: h.e.Tenant, Event: id}) {
			t.Errorf("%+v", n)
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody was told")
	}
}
