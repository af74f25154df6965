package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
)

// actor is who the audit names for what is done on the store directly.
const actor = "cli"

// storeFlags adds the flags of commands that work on the store.
func (r *runner) storeFlags(c *cobra.Command) *cobra.Command {
	s, _ := config.Lookup(config.KeyStore)
	s.Help = "the store to work on"
	config.AddFlags(c.PersistentFlags(), s)
	r.configFlag(c)
	return c
}

func (r *runner) configFlag(c *cobra.Command) {
	c.PersistentFlags().StringVar(&r.configFile, "config", "", "settings `file` (POSTHORN_CONFIG; default ./posthorn.yaml, then /etc/posthorn/posthorn.yaml)")
	must(c.MarkPersistentFlagFilename("config", "yaml", "yml"))
}

// sources is where the settings of a command come from.
func (r *runner) sources(cmd *cobra.Command) config.Sources {
	return config.Sources{
		File:         firstOf(r.configFile, r.getenv("POSTHORN_CONFIG")),
		DefaultFiles: config.DefaultFiles(),
		Environ:      r.Environ,
		Flags:        cmd.Flags(),
	}
}

// storePath returns the store's absolute path.
func (r *runner) storePath(cmd *cobra.Command) (string, error) {
	path, err := config.LoadStore(r.sources(cmd))
	if err != nil {
		return "", settingsFault(err)
	}
	return whole(path)
}

// whole makes a file's path absolute, for logs and errors; a URL stays as it is.
func whole(path string) (string, error) {
	if config.IsPostgres(path) {
		return path, nil
	}
	return filepath.Abs(path)
}

// settingsFault tells of everything that is wrong with settings.
func settingsFault(err error) error {
	f := &fault{exit: ExitUsage, message: "The settings are wrong.", err: err}
	if errors.Is(err, fs.ErrPermission) {
		f.exit = ExitNotAllowed
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) == 1 {
		f.message = sentence(lines[0])
		return f
	}
	f.details = lines
	return f
}

// withStore opens the store for fn. It must be there and belong to the user:
// what another user makes beside it would lock the service out of its own file.
func (r *runner) withStore(cmd *cobra.Command, fn func(context.Context, Store) error) error {
	path, err := r.storePath(cmd)
	if err != nil {
		return err
	}
	if err := r.mayOpen(cmd, path); err != nil {
		return err
	}
	ctx := cmd.Context()
	s, err := r.programs.OpenStore(ctx, path)
	if err != nil {
		if errors.Is(err, fs.ErrPermission) && !config.IsPostgres(path) {
			return notAllowed(path, "", err)
		}
		return err
	}
	return errors.Join(fn(ctx, s), s.Close())
}

func (r *runner) mayOpen(cmd *cobra.Command, path string) error {
	if config.IsPostgres(path) {
		return nil // the database knows who may
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return (&fault{exit: ExitNotFound, message: fmt.Sprintf("There is no store at %s.", path), err: err}).
			with("\"posthorn serve\" makes it. Name another by --store sqlite:PATH or POSTHORN_STORE.")
	case errors.Is(err, fs.ErrPermission):
		return notAllowed(path, "", err)
	case err != nil:
		return err
	case info.IsDir():
		return usage("%s is a directory, not a store.", path)
	}
	if owner, mine := fileOwner(info); !mine {
		return notAllowed(path, sudo(owner, cmd.CommandPath(), path), nil)
	}
	return nil
}

// sudo is the command line that does the same as the file's owner.
func sudo(owner, command, path string) string {
	return fmt.Sprintf("sudo -u %s %s … --store sqlite:%s", owner, command, path)
}

func notAllowed(path, as string, err error) error {
	f := &fault{exit: ExitNotAllowed, message: fmt.Sprintf("The store %s cannot be opened by this user.", path), err: err}
	if as != "" {
		f.message = fmt.Sprintf("The store %s belongs to another user.", path)
		return f.with("Run it as that user: %s", as)
	}
	return f.with("Run it as the user that the service runs as: sudo -u USER posthorn …")
}

// change is the audit's account of what a command does.
func (r *runner) change() store.Change { return store.Change{Actor: actor, At: r.now().UTC()} }

// storeFault gives the store's errors words.
func storeFault(err error, noun, name string) error {
	switch {
	case errors.Is(err, store.ErrNotFound):
		return &fault{exit: ExitNotFound, message: fmt.Sprintf("There is no %s %q.", noun, name), err: err}
	case errors.Is(err, store.ErrExists):
		return &fault{exit: ExitConflict, message: fmt.Sprintf("There is a %s %q already.", noun, name), err: err}
	}
	return err
}
