package tally

import (
	"os"
	"path/filepath"
	"testing"
)

func TestCountAppendsALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tally")
	t.Setenv(File, path)
	t.Run("a test", func(t *testing.T) { Count(t, "nothing is lost", 7) })
	t.Run("another", func(t *testing.T) { Count(t, "nothing is lost", 3) })
	got, err := os.ReadFile(path)
	if want := "nothing is lost\t7\t0\nnothing is lost\t3\t0\n"; err != nil || string(got) != want {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
}
