//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"strconv"
	"syscall"
)

const (
	killed      = syscall.SIGQUIT // immediate shutdown: no checkpoint, recovery at the next start
	interrupted = syscall.SIGINT  // fast shutdown
)

// unprivileged is whom the server runs as when the tests run as root, which
// PostgreSQL refuses to.
func unprivileged() (uid, gid int, needed bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	u, err := user.Lookup("nobody")
	if err != nil {
		return 65534, 65534, true
	}
	uid, _ = strconv.Atoi(u.Uid)
	gid, _ = strconv.Atoi(u.Gid)
	return uid, gid, true
}

func ownedByUser(dir string) error {
	uid, gid, needed := unprivileged()
	if !needed {
		return nil
	}
	return os.Chown(dir, uid, gid)
}

func asUser(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if uid, gid, needed := unprivileged(); needed {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	cmd.Dir = "/"
	endWithParent(cmd)
}

// process is the server's. The goroutine that started it keeps its thread until
// it ends, as the server ends with the thread that started it.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

func start(cmd *exec.Cmd) (*process, error) {
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // how it ended is in its log
			close(p.done)
		}
	}()
	return p, <-started
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

func (p *process) end(how syscall.Signal) error {
	if p.ended() {
		return nil
	}
	err := p.cmd.Process.Signal(how)
	<-p.done
	return err
}
