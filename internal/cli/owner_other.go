//go:build !unix

package cli

import "io/fs"

// fileOwner knows no owners here: opening the file tells.
func fileOwner(fs.FileInfo) (name string, mine bool) { return "", true }
