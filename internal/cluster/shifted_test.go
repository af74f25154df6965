package cluster

import (
	bytesof "encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// wallVariable names the file that holds by how many seconds the wall clock of a
// shifted binary is wrong, as eight bytes.
const wallVariable = "TEST_WALL_CLOCK"

// shiftSource is added to the package that reads the clock: the runtime does not ask
// libc for the time, so that nothing from outside can move its wall clock alone.
const shiftSource = `package %s

import (
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wallShift = func() *atomic.Int64 {
	name, ok := syscall.Getenv("` + wallVariable + `")
	if !ok {
		return new(atomic.Int64)
	}
	fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
	if err != nil {
		panic("open the clock's file: " + err.Error())
	}
	b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic("map the clock's file: " + err.Error())
	}
	return (*atomic.Int64)(unsafe.Pointer(&b[0]))
}()
`

// shiftedBinary is the service, built so that the wall part of its clock can be moved
// while it runs: in the long form that of Go's package time, for which all is compiled
// again; in the short one that of the service's own clock, which is all that should
// look at it.
var shiftedBinary = sync.OnceValues(func() (string, error) {
	if *long {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return "", fmt.Errorf("go env GOROOT: %w", err)
		}
		return buildShifted(filepath.Join(strings.TrimSpace(string(root)), "src", "time"), "time.go",
			"sec, nsec, mono := runtimeNow()\n", "sec, nsec, mono := runtimeNow()\n\tsec += wallShift.Load()\n")
	}
	of, err := filepath.Abs("../clock")
	if err != nil {
		return "", err
	}
	return buildShifted(of, "machine.go", "Wall: now.Round(0)", "Wall: now.Round(0).Add(time.Duration(wallShift.Load()) * time.Second)")
})

// buildShifted builds the service with other text in a file of a package.
func buildShifted(dir, name, reads, shifts string) (string, error) {
	original := filepath.Join(dir, name)
	text, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	shifted := strings.Replace(string(text), reads, shifts, 1)
	if shifted == string(text) {
		return "", fmt.Errorf("%s does not read the clock as it did", original)
	}
	to := filepath.Dir(binary)
	replace := map[string]string{original: filepath.Join(to, "shifted.txt"), filepath.Join(dir, "wallshift.go"): filepath.Join(to, "wallshift.txt")}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	for name, text := range map[string]string{
		"shifted.txt": shifted, "wallshift.txt": fmt.Sprintf(shiftSource, filepath.Base(dir)), "overlay.json": string(overlay),
	} {
		if err := os.WriteFile(filepath.Join(to, name), []byte(text), 0o600); err != nil {
			return "", err
		}
	}
	made := filepath.Join(to, "posthorn-shifted")
	out, err := exec.Command("go", "build", "-overlay", filepath.Join(to, "overlay.json"), "-o", made, "github.com/posthorn/posthorn/cmd/posthorn").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build -overlay: %w\n%s", err, out)
	}
	return made, nil
}

// wall is the wall clock of a process.
type wall struct{ file string }

func newWall(t *testing.T) wall {
	w := wall{filepath.Join(t.TempDir(), "wall")}
	w.set(t, 0)
	return w
}

// set moves it by so much from the true time.
func (w wall) set(t *testing.T, by time.Duration) {
	t.Helper()
	f, err := os.OpenFile(w.file, os.O_CREATE|os.O_WRONLY, 0o600) // the same bytes, not another file
	if err == nil {
		_, err = f.Write(bytesof.NativeEndian.AppendUint64(nil, uint64(int64(by/time.Second))))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// under runs a command so that its wall clock is this one.
func (w wall) under() []string { return []string{"env", wallVariable + "=" + w.file} }
