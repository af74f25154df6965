package app

import (
	"context"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
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
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(cli.Run(ctx, strings.Split(args, "\n"), cli.System(), cli.Programs{
		Serve: Serve, Dev: Dev, Migrate: Migrate, RotateKeys: RotateKeys, Diagnose: Diagnose,
		OpenStore: func(ctx context.Context, path string) (cli.Store, error) { return OpenStore(ctx, path) },
	}))
}
