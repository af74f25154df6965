// Command posthorn delivers webhooks. "posthorn --help" tells how to use it.
package main

import (
	"context"
	"os"

	"github.com/posthorn/posthorn/internal/app"
	"github.com/posthorn/posthorn/internal/cli"
)

func main() {
	os.Exit(cli.Run(app.Signals(), os.Args[1:], cli.System(), cli.Programs{
		Serve:      app.Serve,
		Dev:        app.Dev,
		OpenStore:  func(ctx context.Context, path string) (cli.Store, error) { return app.OpenStore(ctx, path) },
		RotateKeys: app.RotateKeys,
		Migrate:    app.Migrate,
		Diagnose:   app.Diagnose,
		Backup:     app.Backup, Restore: app.Restore, Copy: app.Copy,
	}))
}
