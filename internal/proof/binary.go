package proof

import (
	"context"
	"fmt"
	"os"
)

// WithBinary is for a TestMain: it builds the binary into a folder that it removes at the
// end, has path say where, and returns what run does, or 1 when it cannot be built.
func WithBinary(path *string, run func() int) int {
	dir, err := os.MkdirTemp("", "posthorn-proof-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if *path, err = Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}
