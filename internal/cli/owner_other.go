//go:build !unix

package cli

import "io/fs"

// fileOwner knows no owners here: opening the file tells.
func fileOwner(fs.FileInfo) (name string, mine bool) { return "", true }

// othersMayRead cannot tell here: a folder of the user's is his own by its rights.
func othersMayRead(fs.FileInfo) bool { return false }
