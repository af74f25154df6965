// Package tally collects what tests say of the promises they hold: how many
// cases were tried and how many failed. Tests call [Count]; "make torture" names
// the file that the figures go to and prints them as one table (tools/torture).
package tally

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// File is the environment variable that names the file to append to. Without it
// Count does nothing.
const File = "POSTHORN_TALLY"

var mu sync.Mutex

// Count notes that cases of a promise were tried by the test; they count as
// failed when the test has failed by its end. A test may count several promises,
// and a promise may be counted by several tests: the table adds them up. The
// promise is a short sentence without tabs.
func Count(t testing.TB, promise string, cases int) {
	t.Helper()
	path := os.Getenv(File)
	if path == "" {
		return
	}
	t.Cleanup(func() {
		failures := 0
		if t.Failed() {
			failures = 1
		}
		if err := note(path, promise, cases, failures); err != nil {
			t.Errorf("the tally was not written: %v", err)
		}
	})
}

func note(path, promise string, cases, failures int) error {
	mu.Lock()
	defer mu.Unlock()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	// One write of one line: test processes of several packages append to it.
	_, err = fmt.Fprintf(f, "%s\t%d\t%d\n", promise, cases, failures)
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}
