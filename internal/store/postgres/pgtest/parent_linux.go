package pgtest

import (
	"os/exec"
	"syscall"
)

// endWithParent ends the server when the tests are killed.
func endWithParent(cmd *exec.Cmd) { cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT }
