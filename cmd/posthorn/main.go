// Command posthorn delivers webhooks. "posthorn --help" tells how to use it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/posthorn/posthorn/internal/app"
	"github.com/posthorn/posthorn/internal/cli"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(cli.Run(ctx, os.Args[1:], cli.System(), cli.Programs{
		Serve:      app.Serve,
		Dev:        app.Dev,
		OpenStore:  func(ctx context.Context, path string) (cli.Store, error) { return app.OpenStore(ctx, path) },
		RotateKeys: app.RotateKeys,
		Migrate:    app.Migrate,
		Diagnose:   app.Diagnose,
	}))
}
