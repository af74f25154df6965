//go:build unix

package renew

import (
	"log/slog"
	"os"
	"syscall"
	"testing"
	"time"
)

// A pipe can be read once, at the start; and one that takes a file's place keeps
// nobody waiting.
func TestPipesAreReadOnce(t *testing.T) {
	f := folder{t, t.TempDir()}
	n := pair(t, -time.Hour, time.Hour)
	f.write("cert", n.cert)
	f.must(syscall.Mkfifo(f.path("key"), 0o600))
	go func() { _ = os.WriteFile(f.path("key"), n.key, 0o600) }()
	w := New(slog.New(slog.DiscardHandler))
	_, err := w.Pair("tls-cert", f.path("cert"), f.path("key"))
	f.must(err)
	w.Now()
	if s := w.States()[0]; s.Err != nil {
		t.Errorf("it stands as %+v", s)
	}

	f.must(os.Remove(f.path("key")))
	f.write("key", n.key)
	w = New(slog.New(slog.DiscardHandler))
	_, err = w.Pair("tls-cert", f.path("cert"), f.path("key"))
	f.must(err)
	f.must(os.Remove(f.path("key")))
	f.must(syscall.Mkfifo(f.path("key"), 0o600))
	w.Now()
	if s := w.States()[0]; s.Err == nil {
		t.Errorf("it stands as %+v", s)
	}
}
