package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// never is the line at which a call returned that did not.
const never = math.MaxInt

// call is a system call of the traced service. Lines of the trace are in the
// order in which things happened: the tracer holds a thread at the begin and at
// the end of each call until it has written the line.
type call struct {
	name       string // "create" for all that may make a file
	path       string // of the file, or the directory's for a sync of one
	data       []byte
	offset     int64 // or the new size
	begin, end int
	result     int64
}

// step is one line: a call begins, ends, or both.
type step struct {
	begun, ended *call
}

// unproved skips a proof for what this machine lacks; in CI that is a failure.
func unproved(t *testing.T, lack string) {
	t.Helper()
	if os.Getenv("POSTHORN_CI") != "" {
		t.Fatalf("%s: this proof needs it, and CI must not go without", lack)
	}
	t.Skipf("NOT PROVED HERE: %s", lack)
}

// needTracer skips where strace is missing, but not in CI.
func needTracer(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("strace"); err != nil {
		unproved(t, "strace is not installed (apt-get install strace)")
	}
}

// traced is what a tracer writes of a process.
type traced struct{ file string }

// command runs a program so that what it writes and syncs is in the file. The
// tracer is a child of the program (-D), so that signals meet the right one.
func (t traced) command() []string {
	return []string{"strace", "-D", "-f", "-qq", "-y", "-xx", "-s", "1000000", "--seccomp-bpf", "-e", "signal=none", "-o", t.file,
		"-e", "trace=open,openat,creat,write,pwrite64,ftruncate,fsync,fdatasync,unlink,unlinkat,rename,renameat,renameat2"}
}

// tracer returns the process that traces pid.
func tracer(pid int) (int, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "TracerPid:\t")
	line, _, _ := strings.Cut(rest, "\n")
	if line == "" || line == "0" {
		return 0, fmt.Errorf("nobody traces %d", pid)
	}
	return strconv.Atoi(line)
}

// gone reports whether a process that is no child of ours has ended.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || bytes.Contains(stat, []byte(") Z "))
}

// read waits until the tracer has ended and returns the steps. Only files below
// dir and answers over sockets are kept.
func (t traced) read(ctx context.Context, tracer int, dir string) ([]step, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("the tracer does not end"))
	defer cancel()
	if err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { return gone(tracer), nil }); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(t.file)
	if err != nil {
		return nil, err
	}
	return parse(text, dir)
}

func parse(text []byte, dir string) ([]step, error) {
	p := parser{dir: dir, open: make(map[string]*call), died: make(map[string]int)}
	for line := range bytes.Lines(text) {
		line, whole := bytes.CutSuffix(line, []byte("\n"))
		if !whole {
			break // the tracer ended within it: a call that no power loss needs to keep
		}
		if err := p.line(string(line)); err != nil {
			return nil, fmt.Errorf("line %d of the trace: %w\n%.200s … %s", p.n, err, line, line[max(0, len(line)-80):])
		}
	}
	return p.steps, nil
}

// parser reads "pid name(args) = result", "pid name(args <unfinished ...>" and
// "pid <... name resumed>) = result".
type parser struct {
	dir   string
	n     int
	open  map[string]*call // by thread
	died  map[string]int   // the line at which a thread's last call broke off
	steps []step
}

func (p *parser) line(line string) error {
	p.n++
	pid, rest, ok := strings.Cut(line, " ")
	rest = strings.TrimLeft(rest, " ")
	switch {
	case !ok:
		return errors.New("no process id")
	case strings.HasPrefix(rest, "+++"), strings.HasPrefix(rest, "---"):
		return nil
	case p.died[pid] != 0:
		return fmt.Errorf("the thread goes on after line %d, which has no result", p.died[pid])
	case strings.HasPrefix(rest, "<..."):
		c := p.open[pid]
		delete(p.open, pid)
		if c == nil {
			return nil // of a call that does not matter
		}
		p.steps = append(p.steps, step{ended: c})
		return p.finish(c, rest)
	}
	c, err := p.begin(rest)
	unfinished := strings.HasSuffix(rest, "<unfinished ...>")
	if !unfinished && !strings.Contains(rest, " = ") {
		// Killed in it: the line ends with " <detached ...>", or anywhere. A call
		// whose arguments were not even written had not begun.
		p.died[pid] = p.n
		if c != nil && err == nil {
			p.steps = append(p.steps, step{begun: c})
		}
		return nil
	}
	if c == nil || err != nil {
		return err
	}
	if unfinished {
		p.open[pid] = c
		p.steps = append(p.steps, step{begun: c})
		return nil
	}
	p.steps = append(p.steps, step{begun: c, ended: c})
	return p.finish(c, rest)
}

func (p *parser) finish(c *call, line string) error {
	i := strings.LastIndex(line, " = ")
	if i < 0 {
		return errors.New("no result")
	}
	number, _, _ := strings.Cut(line[i+3:], " ")
	number, _, _ = strings.Cut(number, "<")
	c.end = p.n
	if number == "?" { // the process was killed in it
		c.end = never
		return nil
	}
	var err error
	c.result, err = strconv.ParseInt(number, 0, 64)
	return err
}

// begin returns nil for calls that do not matter.
func (p *parser) begin(line string) (*call, error) {
	name, args, ok := strings.Cut(line, "(")
	if !ok {
		return nil, errors.New("no call")
	}
	c := &call{name: name, begin: p.n, end: never}
	switch name {
	case "open", "openat", "creat", "unlink", "unlinkat", "rename", "renameat", "renameat2":
		_, quoted, _ := strings.Cut(args, `"`)
		path, flags, _ := strings.Cut(quoted, `"`)
		c.path = filepath.Clean(unhex(path))
		create := name == "creat" || strings.Contains(flags, "O_CREAT")
		if strings.HasPrefix(name, "open") && !create || filepath.Dir(c.path) != p.dir {
			return nil, nil
		}
		switch {
		case strings.HasPrefix(name, "rename"), create && strings.Contains(flags, "O_TRUNC"):
			return nil, errors.New("the model of the disk does not know this call")
		case create:
			c.name = "create"
		}
		return c, nil
	}
	_, file, _ := strings.Cut(args, "<")
	file, rest, _ := strings.Cut(file, ">")
	c.path = unhex(file)
	inside := filepath.Dir(c.path) == p.dir
	switch name {
	case "fsync", "fdatasync":
		if !inside && c.path != p.dir {
			return nil, nil
		}
		return c, nil
	case "ftruncate":
		number, _, _ := strings.Cut(strings.TrimPrefix(rest, ", "), ")")
		number, _, _ = strings.Cut(number, " ")
		var err error
		c.offset, err = strconv.ParseInt(number, 10, 64)
		return c, err
	case "write":
		if !strings.Contains(c.path, "socket:") && !strings.Contains(c.path, "TCP") {
			return nil, nil
		}
	case "pwrite64":
		if !inside {
			return nil, nil
		}
	default:
		return nil, fmt.Errorf("a %s was not asked for", name)
	}
	_, quoted, _ := strings.Cut(rest, `"`)
	text, after, ok := strings.Cut(quoted, `"`)
	if !ok || strings.HasPrefix(after, "...") {
		return nil, errors.New("the data is cut short")
	}
	c.data = []byte(unhex(text))
	if name == "write" {
		return c, nil
	}
	fields := strings.FieldsFunc(after, func(r rune) bool { return strings.ContainsRune(", )", r) })
	if len(fields) < 2 {
		return nil, errors.New("no offset")
	}
	var err error
	c.offset, err = strconv.ParseInt(fields[1], 10, 64)
	return c, err
}

const hexDigits = "0123456789abcdef"

// unhex reads \x41\x42.
func unhex(s string) string {
	b := make([]byte, 0, len(s)/4)
	for i := 0; i+3 < len(s); i += 4 {
		b = append(b, byte(strings.IndexByte(hexDigits, s[i+2])<<4|strings.IndexByte(hexDigits, s[i+3])))
	}
	return string(b)
}

// contents reads the files of a store; those that are not there are left out.
func contents(path string) (map[string][]byte, error) {
	files := make(map[string][]byte)
	for _, suffix := range []string{"", "-wal", "-journal"} {
		b, err := os.ReadFile(path + suffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		files[path+suffix] = b
	}
	return files, nil
}

// hexed writes as the tracer does.
func hexed(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\x%02x`, s[i])
	}
	return b.String()
}

// TestTraceBrokenOff: a process that is killed within a call leaves its line
// without a result; what it would have written may be on disk or not.
func TestTraceBrokenOff(t *testing.T) {
	t.Parallel()
	write := func(pid int, data, end string) string {
		return fmt.Sprintf(`%d pwrite64(10<%s>, "%s", %d, 0%s`+"\n", pid, hexed("/d/posthorn.db"), hexed(data), len(data), end)
	}
	for _, end := range []string{" <detached ...>", ""} {
		steps, err := parse([]byte(write(7, "whole", ")       = 5")+write(8, "part", end)+"7 +++ killed by SIGKILL +++\n"), "/d")
		if err != nil || len(steps) != 2 {
			t.Fatalf("%q: %d steps, %v", end, len(steps), err)
		}
		if c := steps[0].ended; c == nil || c.result != 5 {
			t.Errorf("%q: the whole call is %+v", end, c)
		}
		if s := steps[1]; s.ended != nil || s.begun.end != never || string(s.begun.data) != "part" {
			t.Errorf("%q: the broken call is %+v", end, s.begun)
		}
	}
	if _, err := parse([]byte(write(8, "part", "")+write(8, "more", ")       = 4")), "/d"); err == nil {
		t.Error("a call without a result in the middle of a thread's trace was taken")
	}
}
