package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

// pseudoTerminal opens a pseudo terminal; what is written to the second file is read from
// the first.
func pseudoTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminal may be opened: not tried on a terminal (%v)", err)
	}
	t.Cleanup(func() { master.Close() })
	var number, unlock int32
	for request, arg := range map[uintptr]*int32{syscall.TIOCGPTN: &number, syscall.TIOCSPTLCK: &unlock} {
		if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, master.Fd(), request, uintptr(unsafe.Pointer(arg))); errno != 0 {
			t.Skipf("no pseudo terminal may be opened: not tried on a terminal (%v)", errno)
		}
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no pseudo terminal may be opened: not tried on a terminal (%v)", err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// A terminal gets escapes, a pipe the bytes as they are.
func TestJSONOnATerminal(t *testing.T) {
	const said = "{\"a\":\"\u009b2J\u202e\"}"
	master, slave := pseudoTerminal(t)
	for _, output := range []string{"json", "jsonl"} {
		r := &runner{output: output}
		r.Out = slave
		if err := r.printOne([]byte(said)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 200)
		n, err := master.Read(b)
		if got := string(b[:n]); err != nil || !strings.Contains(got, `\u009b2J\u202e`) || strings.ContainsAny(got, "\u009b\u202e") {
			t.Errorf("%s: %q, %v", output, got, err)
		}
	}
	var pipe strings.Builder
	r := &runner{output: "jsonl"}
	r.Out = io.Writer(&pipe)
	if err := r.printOne([]byte(said)); err != nil || pipe.String() != said+"\n" {
		t.Errorf("a pipe gets %q, %v", pipe.String(), err)
	}
}
