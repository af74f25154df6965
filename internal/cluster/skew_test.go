package cluster

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestAWrongClockMakesANodeUnready: the database's clock is three seconds ahead, by
// libfaketime. The node serves, but says that it should get no traffic, and why.
func TestAWrongClockMakesANodeUnready(t *testing.T) {
	t.Parallel()
	pgtest.Missing(t)
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		if os.Getenv("POSTHORN_CI") != "" {
			t.Fatal("there is no libfaketime, and CI must have it: apt-get install faketime")
		}
		t.Skip("there is no libfaketime (apt-get install faketime): a wrong clock is not tested")
	}
	db, err := pgtest.StartIn([]string{"LD_PRELOAD=" + found[0], "FAKETIME=+3s", "FAKETIME_DONT_FAKE_MONOTONIC=1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Stop(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	w := &world{t: t, ctx: ctx, db: db}
	w.client = []*http.Client{{Timeout: time.Second}}
	first, last := 0, ""
	server, err := proof.Prepare(ctx, proof.Options{Binary: binary, Dir: t.TempDir(), Database: ill.New(t, db.Dir()).TCP("postgres")})
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Launch(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Kill)
	w.nodes = append(w.nodes, server)
	err = proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		first, last = w.readyz(0)
		return first != 0 && last != "starting", nil
	})
	want := regexp.MustCompile(`^this machine's clock is -[23]\.\d s from the database's; set both by NTP$`)
	if err != nil || first != http.StatusServiceUnavailable || !want.MatchString(last) {
		t.Errorf("/readyz says %d %q, %v\n%s", first, last, err, server.LogTail())
	}
}
