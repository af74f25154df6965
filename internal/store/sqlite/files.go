package sqlite

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// writePID takes no room that the file does not have already, as the disk may be full.
func writePID(f *os.File) error {
	text := strconv.Itoa(os.Getpid()) + "\n"
	if _, err := f.WriteAt([]byte(text), 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(text)))
}

// errNotFile: something else than a file is at the path, or in the way to it.
var errNotFile = errors.New("it is no file")

// checkKind refuses, before anything is made beside it, a path at which something else
// than a file is. One that is not there is left to who opens it.
func checkKind(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("%w: a part of its path is a file, not a folder", errNotFile)
	case errors.Is(err, syscall.ENAMETOOLONG):
		return fmt.Errorf("%w: its name is too long for the file system", errNotFile)
	case errors.Is(err, syscall.ELOOP):
		return fmt.Errorf("%w: its links lead to each other", errNotFile)
	case err != nil:
		return nil
	case info.IsDir():
		return fmt.Errorf("%w but a folder; name a file in it, such as %s", errNotFile, filepath.Join(path, "posthorn.db"))
	case !info.Mode().IsRegular():
		return fmt.Errorf("%w but a device, a pipe or a socket", errNotFile)
	}
	return nil
}

func mustNotExist(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = fs.ErrExist
		}
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return nil
}

// createOwn makes an empty file that only its owner can read, for what is not
// whole yet.
func createOwn(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; another command is writing it, or one was cut short: then remove it", err)
	}
	return f, err
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// publishFile gives a file that is whole its name, once it is on disk.
func publishFile(temp, path string) error {
	if err := syncFile(temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // a folder cannot be synced there
	}
	return syncFile(filepath.Dir(path))
}

func syncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// copyFile copies a backup, readable by its owner only.
func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if info, err := os.Stat(from + "-wal"); err == nil && info.Size() > 0 {
		return fmt.Errorf("%s has a log beside it (%s-wal): it is a database that was in use, not a backup", from, from)
	}
	out, err := createOwn(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// explainBackup names the file that could not be written.
func explainBackup(to string, err error) error {
	return fmt.Errorf("the backup %s cannot be written: %w", to, classify(err))
}
