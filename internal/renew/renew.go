// Package renew keeps in use what is made of files that somebody else renews:
// certificates with their keys, and authorities. It is the one place that decides
// when such a file is read again, what of it is taken, and what is said of it.
//
// Files are read every few seconds and compared by what they hold, so that nothing
// depends on times, sizes or on how they were replaced: written over, renamed into
// place, or behind a link that was moved, as Kubernetes does. A change is taken once
// two looks a second apart see the same, for certificate and key are replaced one
// after the other and files are written bit by bit. What is missing or not good
// changes nothing: what the files held before stays in use.
package renew

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

const (
	// Every is how often files are looked at.
	Every = 5 * time.Second
	// settle is how long a change must stand before it is taken.
	settle = time.Second
	// maxFile bounds what is read of a file; all authorities of a system are 300 KiB.
	maxFile = 16 << 20
)

// Source is one thing that is made of files.
type Source struct {
	// Setting names it for people, as "tls-cert".
	Setting string
	// Files are read together. Without any, Take reads by itself at each look.
	Files []string
	// Take makes what the contents of Files hold and puts it in use. On an error it
	// has changed nothing. It is called by one goroutine at a time.
	Take func(contents [][]byte) error
}

// State is how a source stands.
type State struct {
	Setting string
	// Err is why the files as they are now are not in use; nil if they are.
	Err error
	// Taken counts the changes that were put in use since the start.
	Taken int
}

// Watch looks after sources. Its methods may be called concurrently; sources are
// added before Run.
type Watch struct {
	log *slog.Logger
	// looking is held during a look, which may wait for a disk; mu never for long.
	looking sync.Mutex
	sources []*source
	mu      sync.Mutex // guards the sources' states
}

type source struct {
	Source
	// once: it is a pipe or the like, which can be read one time.
	once        bool
	taken, seen digest
	state       State
}

type digest [sha256.Size]byte

// New returns a watch without sources. It logs what is taken and what is not.
func New(log *slog.Logger) *Watch { return &Watch{log: log} }

// Add reads the files and puts them in use. The error names the setting and what is
// wrong; the source is not watched then.
func (w *Watch) Add(s Source) error {
	w.looking.Lock()
	defer w.looking.Unlock()
	added := &source{Source: s, state: State{Setting: s.Setting}}
	for _, path := range s.Files {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
			added.once = true
		}
	}
	contents, err := added.read()
	if err == nil {
		err = s.Take(contents)
	}
	if err != nil {
		return fmt.Errorf("--%s: %w", s.Setting, err)
	}
	added.taken = sum(contents, nil)
	added.seen = added.taken
	w.sources = append(w.sources, added)
	return nil
}

// Run looks every few seconds, and at once when at has something, until ctx ends.
func (w *Watch) Run(ctx context.Context, at <-chan os.Signal) {
	wait := time.NewTimer(Every)
	defer wait.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-at:
			w.Now()
			wait.Reset(Every)
		case <-wait.C:
			if w.look(false) {
				wait.Reset(settle)
			} else {
				wait.Reset(Every)
			}
		}
	}
}

// Now reads all files and puts in use what is good of them, without waiting for it
// to settle: whoever asks says that they are complete.
func (w *Watch) Now() {
	before := w.States()
	w.look(true)
	taken, refused := []string{}, []string{}
	for i, s := range w.States() {
		if s.Err != nil {
			refused = append(refused, s.Setting)
		} else if s.Taken > before[i].Taken {
			taken = append(taken, s.Setting)
		}
	}
	w.log.Info("files that are renewed were read again, as SIGHUP asks for",
		"changed", strings.Join(taken, ", "), "not_good", strings.Join(refused, ", "))
}

// States returns how all sources stand, in the order in which they were added. It
// waits for no disk.
func (w *Watch) States() []State {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make([]State, len(w.sources))
	for i, s := range w.sources {
		all[i] = s.state
	}
	return all
}

// Trouble names the settings whose files are not good, without their paths; nil if
// there are none.
func (w *Watch) Trouble() error {
	var bad []string
	for _, s := range w.States() {
		if s.Err != nil {
			bad = append(bad, s.Setting)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fmt.Errorf("what the files of %s hold now is not good, and what they held before is used; the log says why", strings.Join(bad, ", "))
}

// look reports whether something changed that has to settle.
func (w *Watch) look(insist bool) (again bool) {
	w.looking.Lock()
	defer w.looking.Unlock()
	for _, s := range w.sources {
		if !s.once && w.lookAt(s, insist) {
			again = true
		}
	}
	return again
}

func (w *Watch) lookAt(s *source, insist bool) (again bool) {
	contents, err := s.read()
	now := sum(contents, err)
	if now == s.taken && len(s.Files) > 0 {
		s.seen = now
		w.set(s, nil, false)
		return false
	}
	if now != s.seen && !insist {
		s.seen = now
		return true
	}
	s.seen = now
	if err == nil {
		err = s.Take(contents)
	}
	changed := now != s.taken
	if err == nil {
		s.taken = now
	}
	w.set(s, err, changed)
	return false
}

// set notes how a source stands now, and logs what is new about that.
func (w *Watch) set(s *source, err error, changed bool) {
	w.mu.Lock()
	was := s.state.Err
	s.state.Err = err
	if err == nil && changed {
		s.state.Taken++
	}
	w.mu.Unlock()
	files := strings.Join(s.Files, ", ")
	switch {
	case err != nil && (was == nil || was.Error() != err.Error()):
		w.log.Warn("a file that is renewed is not good: what it held before stays in use. Put a good one in its place; it is looked at every few seconds, and at once on SIGHUP",
			"setting", s.Setting, "files", files, "err", err)
	case err == nil && changed:
		w.log.Info("a renewed file is in use", "setting", s.Setting, "files", files)
	case err == nil && was != nil:
		w.log.Info("a file that is renewed is good again", "setting", s.Setting, "files", files)
	}
}

// read returns what the files hold now.
func (s *source) read() ([][]byte, error) {
	var all [][]byte
	for _, path := range s.Files {
		b, err := readFile(path, s.once)
		if err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, nil
}

// readFile does not open what would keep it waiting, unless once says that it is
// meant to be read so.
func readFile(path string, once bool) ([]byte, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !once && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > maxFile:
		return nil, fmt.Errorf("%s is larger than %d MiB", path, maxFile>>20)
	case len(b) == 0:
		return nil, fmt.Errorf("%s is empty", path)
	}
	return b, nil
}

// sum stands for what a look has seen, an error too.
func sum(contents [][]byte, err error) digest {
	h := sha256.New()
	for _, b := range contents {
		fmt.Fprintf(h, "%d:", len(b))
		h.Write(b)
	}
	if err != nil {
		fmt.Fprintf(h, "error: %v", err)
	}
	return digest(h.Sum(nil))
}
