//go:build unix

package app

import "syscall"

func setUmask(mask int) { syscall.Umask(mask) }
