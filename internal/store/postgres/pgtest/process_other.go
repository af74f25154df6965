//go:build !unix

package pgtest

import "os/exec"

const (
	killed = iota
	interrupted
)

func ownedByUser(string) error { return ErrNotInstalled }

func asUser(*exec.Cmd) {}

type process struct{}

func start(*exec.Cmd) (*process, error) { return nil, ErrNotInstalled }

func (p *process) ended() bool { return true }

func (p *process) end(int) error { return nil }
