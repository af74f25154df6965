//go:build linux

package sqlite_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// smallDisk is a file system of 8 MiB, and what takes all that is free of it.
func smallDisk(t *testing.T) (dir string, fill func()) {
	t.Helper()
	dir = t.TempDir()
	if out, err := exec.CommandContext(t.Context(), "mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", dir).CombinedOutput(); err != nil {
		lack := fmt.Sprintf("no small file system can be mounted (needs root): %v %s", err, out)
		if os.Getenv("POSTHORN_CI") != "" {
			t.Fatal(lack)
		}
		t.Skip(lack)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", "-l", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v %s", err, out)
		}
	})
	return dir, func() {
		f, err := os.Create(filepath.Join(dir, "ballast"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for block := make([]byte, 4096); err == nil; {
			_, err = f.Write(block)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// A process that was killed starts on a full disk: what its log takes of it is used again.
func TestAKilledServiceStartsOnAFullDisk(t *testing.T) {
	dir, fill := smallDisk(t)
	from, path := filepath.Join(t.TempDir(), "posthorn.db"), filepath.Join(dir, "posthorn.db")
	s := newScene(t, open(t, sqlite.Options{Path: from, Poll: -1}))
	var last, first = s.mustPublish(false), s.mustPublish(false)
	for range 300 { // owned: the next start changes each
		last = s.mustPublish(false)
	}
	s.EmptyLog(t)
	for range 200 {
		if err := s.Ping(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for _, suffix := range []string{"", "-wal", "-shm", ".lock"} {
		copyTo(t, from+suffix, path+suffix)
	}
	fill()
	again, err := sqlite.Open(t.Context(), sqlite.Options{Path: path, Poll: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	s.Store = again
	if s.state(first) != "pending" || s.state(last) != "pending" {
		t.Errorf("%s, %s", s.state(first), s.state(last))
	}
	if c, err := again.Counts(t.Context()); err != nil || c.Open != 302 {
		t.Errorf("%+v, %v", c, err)
	}
	if err := again.Ping(t.Context()); err != nil {
		t.Errorf("nothing can be written: %v", err)
	}
}

// A start that the disk has no room for says which file lacks how much of it.
func TestAStartOnAFullDiskSaysWhatIsMissing(t *testing.T) {
	dir, fill := smallDisk(t)
	path := filepath.Join(dir, "posthorn.db")
	s := newScene(t, open(t, sqlite.Options{Path: path}))
	s.mustPublish(false)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	fill()
	for lacks, path := range map[string]string{
		"lacks 32 KiB for " + path + "-shm":              path,
		"lacks room for " + filepath.Join(dir, "new.db"): filepath.Join(dir, "new.db"),
	} {
		err := opens(t, sqlite.Options{Path: path})
		for _, text := range []string{path, "its disk is full", "0 KiB are free", lacks, "nothing is lost"} {
			if !strings.Contains(err.Error(), text) {
				t.Errorf("it does not say %q: %v", text, err)
			}
		}
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	open(t, sqlite.Options{Path: path})
}
