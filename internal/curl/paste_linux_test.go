package curl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/posthorn/posthorn/internal/curl"
)

// terminal opens both ends of a terminal: what is written to master is typed.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminal can be made here: %v", err)
	}
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// paste types a text into a shell that someone sits at, and returns what the terminal
// showed once the shell has ended.
func paste(t *testing.T, dir, shell, text string) (shown string) {
	t.Helper()
	master, slave := terminal(t)
	defer master.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	words := strings.Fields(shell)
	c := exec.CommandContext(ctx, words[0], words[1:]...)
	c.Dir, c.Stdin, c.Stdout, c.Stderr = dir, slave, slave, slave
	c.Env = append(os.Environ(), "TERM=dumb", "HISTFILE=", "HOME="+dir)
	c.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	go io.WriteString(master, text) // it fails once the shell has ended
	out, _ := io.ReadAll(master)    // EIO once the shell has ended
	if err := c.Wait(); err != nil {
		t.Errorf("%s: %v", shell, err)
	}
	return string(out)
}

// A terminal cuts long lines and acts on control characters, and some shells look into
// their history for what stands behind "!".
func TestItCanBePastedIntoATerminal(t *testing.T) {
	needs(t, "curl", "sh")
	for _, shell := range []string{"sh -i", "dash -i", "bash --norc --noprofile -i", "bash --norc --noprofile --noediting -i"} {
		program, _, _ := strings.Cut(shell, " ")
		if _, err := exec.LookPath(program); err != nil {
			continue
		}
		t.Run(shell, func(t *testing.T) {
			to, got := receiver(t)
			for _, name := range []string{"an event", "256 KiB on one line", "commands", "each byte, often", "ends of documents", "tabs"} {
				command, err := curl.Command{Options: "-q -sS", URL: to, Headers: [][2]string{{"X-It", "!! it's"}}, Body: bodies[name], Wrapped: true}.Text()
				if err != nil {
					t.Fatal(err)
				}
				dir := t.TempDir()
				shown := paste(t, dir, shell, strings.ReplaceAll(command+"\nexit\n", "\n", "\r")) // as the key says it
				if all := got(); len(all) != 1 || !bytes.Equal(all[0].body, bodies[name]) || all[0].head.Get("X-It") != "!! it's" {
					t.Fatalf("%s: %d requests: %.300q\n…%q", name, len(all), all, shown[max(0, len(shown)-500):])
				}
				left(t, dir)
			}
		})
	}
}
