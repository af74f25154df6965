package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
)

func (r *runner) storeCommand() *cobra.Command {
	return r.storeFlags(r.group("store", "", "Back up, restore and move the store",
		"  posthorn store backup /backups/posthorn.db\n  posthorn store restore /backups/posthorn.db --yes",
		r.storeBackup(), r.storeRestore(), r.storeCopy()))
}

// inventoryJSON is a backup's account for -o json.
type inventoryJSON struct {
	Path string `json:"path"`
	store.Inventory
	Aside string `json:"aside,omitzero"`
}

func (r *runner) storeBackup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "Copy the SQLite store into a file, while the service runs", Args: takes("FILE"),
		Example: "  posthorn store backup /backups/posthorn-$(date +%F).db --store sqlite:/var/lib/posthorn/posthorn.db",
		Long: "The copy is whole as of when it began, verified (every page and index, and that\n" +
			"nothing lacks a part), on disk, and readable by its owner only. FILE may not exist.\n" +
			"Keep POSTHORN_ENCRYPTION_KEYS elsewhere: a backup is of no use without them.",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := r.storePath(cmd)
			if err != nil {
				return err
			}
			if err := r.mayOpen(cmd, path); err != nil {
				return err
			}
			to, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			bar := r.progress()
			inv, err := r.programs.Backup(cmd.Context(), path, to, func(done, total int64) { bar.show("backup", done, total) })
			bar.end()
			if errors.Is(err, fs.ErrExist) {
				return (&fault{exit: ExitConflict, message: sentence(err.Error()), err: err}).with("A backup never replaces a file; choose another name.")
			}
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(toJSON(inventoryJSON{Path: to, Inventory: inv}))
			}
			r.say("%s is written and verified: %s.", to, contents(inv))
			return nil
		},
	}
}

func contents(inv store.Inventory) string {
	return fmt.Sprintf("%d bytes, %d tenants, %d endpoints, %d events, %d deliveries, %d of them open", inv.Bytes, inv.Tenants, inv.Endpoints, inv.Events, inv.Deliveries, inv.Open)
}

func (r *runner) storeRestore() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "restore FILE", Short: "Put a backup in the place of the SQLite store", Args: takes("FILE"),
		Example: "  posthorn store restore /backups/posthorn.db --store sqlite:/var/lib/posthorn/posthorn.db --yes",
		Long: "The service must not run. The backup is verified first; what is there now is kept\n" +
			"beside it. The restored store sends nothing until \"posthorn sending resume\": what was\n" +
			"sent after the backup was taken would go out again, with the same webhook-id.",
		RunE: func(cmd *cobra.Command, args []string) error {
			path, err := r.storePath(cmd)
			if err != nil {
				return err
			}
			if err := r.mayOpen(cmd, path); err != nil && exitOf(err) != ExitNotFound {
				return err
			}
			if err := r.confirm(cmd.Context(), yes, fmt.Sprintf("Replace %s by the backup %s?", path, args[0])); err != nil {
				return err
			}
			inv, aside, err := r.programs.Restore(cmd.Context(), args[0], path)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(toJSON(inventoryJSON{Path: path, Inventory: inv, Aside: aside}))
			}
			r.say("%s is restored: %s.", path, contents(inv))
			if aside != "" {
				r.say("What was there is %s.", aside)
			}
			r.say("Nothing is sent until \"posthorn sending resume\"; \"posthorn serve\" says how much would go out.")
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

// exitOf is the exit code that an error asks for; 1 if none.
func exitOf(err error) int {
	if f, ok := errors.AsType[*fault](err); ok {
		return f.exit
	}
	return ExitFailed
}

func (r *runner) storeCopy() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "copy", Short: "Move a SQLite store into an empty PostgreSQL database", Args: takes(),
		Example: `  PGPASSFILE=/etc/posthorn/pgpass posthorn store copy --store sqlite:/var/lib/posthorn/posthorn.db \
    --to postgres://posthorn@db.internal/posthorn`,
		Long: "The service must not run. All is copied in one transaction, with its ids, and compared\n" +
			"by count and checksum before it is kept; else nothing is. Endpoint secrets stay sealed:\n" +
			"serve the copy with the same POSTHORN_ENCRYPTION_KEYS. The file sends nothing\n" +
			"afterwards. A password comes from PGPASSFILE or PGPASSWORD: other users can read flags.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			path, err := r.storePath(cmd)
			if err != nil {
				return err
			}
			switch {
			case to == "":
				return usage("--to is missing.").with("Name the database: --to postgres://user@host/database")
			case !config.IsPostgres(to) || config.IsPostgres(path):
				return usage("A store is copied from a SQLite file to PostgreSQL.").with("--store sqlite:PATH --to postgres://user@host/database")
			}
			if err := r.mayOpen(cmd, path); err != nil {
				return err
			}
			bar := r.progress()
			copied, err := r.programs.Copy(cmd.Context(), path, to, bar.show)
			bar.end()
			if err != nil {
				return err
			}
			out := r.list("TABLE", "ROWS", "CHECKSUM")
			for _, t := range copied {
				if err := out.add(toJSON(t), plain, t.Table, fmt.Sprint(t.Rows), t.Checksum); err != nil {
					return err
				}
			}
			if err := out.close(""); err != nil {
				return err
			}
			r.say("%s is copied to %s and compared. The file sends nothing any more; keep it as a backup.", path, config.ShownStore(to))
			return nil
		},
	}
	c.Flags().StringVar(&to, "to", "", "the `database`: postgres://user@host/database")
	return c
}

// progress is a line that a terminal shows while something takes its time.
type progress struct {
	r     *runner
	shown bool
	last  string
}

func (r *runner) progress() *progress { return &progress{r: r} }

// show tells how much is done; a pipe shows nothing.
func (p *progress) show(what string, done, total int64) {
	if !isTerminal(p.r.Err) || total <= 0 {
		return
	}
	line := fmt.Sprintf("%s %d %%", what, min(100, done*100/total))
	if line != p.last {
		fmt.Fprintf(p.r.Err, "\r\x1b[K%s", line)
		p.last, p.shown = line, true
	}
}

func (p *progress) end() {
	if p.shown {
		fmt.Fprint(p.r.Err, "\r\x1b[K")
	}
}
