package app

import (
	"context"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// childArgs is the environment variable that makes the test binary the program
// "posthorn" with these arguments; childUmask sets its umask first.
const (
	childArgs  = "RUN_PROGRAM_ARGS"
	childUmask = "RUN_PROGRAM_UMASK"
)

func TestMain(m *testing.M) {
	args, child := os.LookupEnv(childArgs)
	if !child {
		pgtest.Main(m) // and ends
	}
	if mask, err := strconv.ParseInt(os.Getenv(childUmask), 8, 32); err == nil {
		setUmask(int(mask))
	}
	os.Exit(cli.Run(Signals(), strings.Split(args, "\n"), cli.System(), cli.Programs{
		Serve: Serve, Dev: Dev, Migrate: Migrate, RotateKeys: RotateKeys, Diagnose: Diagnose,
		Backup: Backup, Restore: Restore, Copy: Copy,
		OpenStore: func(ctx context.Context, path string) (cli.Store, error) { return OpenStore(ctx, path) },
	}))
}
