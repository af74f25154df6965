package sqlite

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const errorSharingViolation = syscall.Errno(32)

// fileLock is the lock of the serving process, a file beside the database that
// is open for nobody else to write. It holds the process id.
type fileLock struct{ f *os.File }

func lockFile(path string) (*fileLock, error) {
	name, err := syscall.UTF16PtrFromString(path + ".lock")
	if err != nil {
		return nil, err
	}
	h, err := syscall.CreateFile(name, syscall.GENERIC_READ|syscall.GENERIC_WRITE, syscall.FILE_SHARE_READ,
		nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errorSharingViolation) {
		b, _ := os.ReadFile(path + ".lock")
		pid, _ := strconv.Atoi(strings.TrimSpace(string(b)))
		return nil, &LockedError{Path: path, PID: pid}
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path + ".lock", Err: err}
	}
	f := os.NewFile(uintptr(h), path+".lock")
	if err := writePID(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &fileLock{f}, nil
}

func (l *fileLock) release() error {
	if l == nil {
		return nil
	}
	return l.f.Close()
}

// Holder cannot tell here which process serves from the file.
func Holder(string) (pid int, err error) { return 0, nil }
