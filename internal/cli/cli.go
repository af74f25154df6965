// Package cli is Posthorn's command line. Data goes to standard output, talk to
// standard error; [Run] returns the exit code. The commands token, tenant, key, store
// and migrate work on the store; the others call the API of a server through
// package client.
package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store"
)

// Programs are the parts of Posthorn that commands start. All are required.
type Programs struct {
	// Serve and Dev run until ctx ends and return nil then.
	Serve func(ctx context.Context, cfg config.Config, stdout, stderr io.Writer) error
	Dev   func(ctx context.Context, cfg config.Dev, stdout, stderr io.Writer) error
	// OpenStore opens the store of an installation that may be running. The file
	// exists.
	OpenStore func(ctx context.Context, path string) (Store, error)
	// RotateKeys seals anew with the first key and counts the secrets of endpoints
	// and the remembered answers that another one had sealed.
	RotateKeys func(ctx context.Context, path, keys string) (secrets, answers int, err error)
	// Backup copies the file of a store that may be served to another one, Restore
	// puts a backup in the place of a file, and returns where what was there is kept.
	Backup  func(ctx context.Context, path, to string, progress func(done, total int64)) (store.Inventory, error)
	Restore func(ctx context.Context, backup, path string) (inv store.Inventory, aside string, err error)
	// Copy copies a SQLite file into an empty PostgreSQL database.
	Copy func(ctx context.Context, from, to string, progress store.Progress) ([]store.Copied, error)
	// Migrate makes the store's file, if there is none, and brings it to the
	// newest schema.
	Migrate func(ctx context.Context, path string) (from, to int64, err error)
	// Diagnose returns the checks of an installation on this machine; resolve is a
	// name to ask the resolver for.
	Diagnose func(cfg config.Config, resolve string) []doctor.Check
}

// Store is the part of the store that commands work on.
type Store interface {
	store.Tenants
	store.Tokens
	Deletions(ctx context.Context, before int64, limit int) ([]store.Deletion, error)
	Close() error
}

// Streams are what a process begins with.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
	Environ  []string // as [os.Environ] returns it
}

// System is the process's own streams.
func System() Streams {
	return Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}
}

// Run executes the command line args (without the program's name) and returns
// the exit code: see [Codes].
func Run(ctx context.Context, args []string, s Streams, p Programs) int {
	r := &runner{Streams: s, programs: p, now: time.Now}
	root := r.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return r.finish(ctx, args, err)
}

// runner is one run of the command line: what it was given and what its common
// flags say.
type runner struct {
	Streams
	programs Programs
	now      func() time.Time

	output     string
	changes    bool    // the command may change something on a server
	serves     bool    // it is a service, whose end waits for no reader
	told       bool    // which saved one it is
	found      *target // nil until it is asked for
	configFile string
	remote     remoteFlags
}

// getenv returns an environment variable, or "".
func (r *runner) getenv(name string) string {
	for i := len(r.Environ) - 1; i >= 0; i-- {
		if value, ok := strings.CutPrefix(r.Environ[i], name+"="); ok {
			return value
		}
	}
	return ""
}

// say writes lines of talk. Whatever others wrote in them steers no terminal.
func (r *runner) say(format string, args ...any) {
	fmt.Fprintln(r.Err, steady(fmt.Sprintf(format, args...)))
}

func (r *runner) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "posthorn",
		Short: "Webhooks for a platform's partners: signed, retried, watched",
		Long: "Posthorn takes events from a platform and delivers them to its partners'\n" +
			"endpoints: signed, near real time, at least once.",
		Example: `  posthorn dev                         # try it: server, receiver and sample events
  posthorn endpoint create --url https://partner.example.com/hooks --events 'cases.*'
  posthorn event send cases.updated --data @case.json --wait`,
		SilenceErrors: true, SilenceUsage: true,
		Args: r.noSuchCommand,
		RunE: showHelp,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			r.changes = changes(c)
			return r.checkOutput()
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
	}
	root.SetIn(r.In)
	root.SetOut(r.Out)
	root.SetErr(r.Err)
	root.SetFlagErrorFunc(flagFault)
	root.SetHelpTemplate(helpTemplate)
	root.SetUsageTemplate(usageTemplate)
	root.PersistentFlags().StringVarP(&r.output, "output", "o", "table", "how results are printed: `table`, json or jsonl")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "jsonl"}, cobra.ShellCompDirectiveNoFileComp)))

	run := &cobra.Group{ID: "run", Title: "Run:"}
	use := &cobra.Group{ID: "use", Title: "Use a server:"}
	receive := &cobra.Group{ID: "receive", Title: "Receive webhooks:"}
	operate := &cobra.Group{ID: "operate", Title: "Operate an installation:"}
	root.AddGroup(run, use, receive, operate)
	root.SetHelpCommandGroupID(operate.ID)
	root.SetCompletionCommandGroupID(operate.ID)
	add := func(g *cobra.Group, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = g.ID
			root.AddCommand(c)
		}
	}
	add(run, r.devCommand(), r.serveCommand(), r.benchCommand())
	add(use, r.endpointCommand(), r.eventCommand(), r.triggerCommand(), r.listenCommand(), r.eventTypeCommand(), r.deliveryCommand(), r.exportCommand(), r.replayCommand(), r.auditCommand(), r.sendingCommand(), r.outboxCommand(), r.contextCommand())
	add(receive, r.checkCommand(), r.verifyCommand(), r.signCommand())
	add(operate, r.tokenCommand(), r.tenantCommand(), r.keyCommand(), r.storeCommand(), r.configCommand(), r.migrateCommand(), r.doctorCommand(), r.versionCommand())
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			describeCompletion(c)
		}
	}
	return root
}

// describeCompletion gives cobra's own command the manners of the others.
func describeCompletion(c *cobra.Command) {
	c.Short, c.Long = "Print a script that completes commands, ids and event types", ""
	c.Example = "  source <(posthorn completion bash)\n  posthorn completion fish > ~/.config/fish/completions/posthorn.fish"
	for _, sub := range c.Commands() {
		sub.Long = ""
		switch sub.Name() {
		case "powershell":
			sub.Example = "  posthorn completion powershell | Out-String | Invoke-Expression"
		case "fish":
			sub.Example = "  posthorn completion fish | source"
		default:
			sub.Example = "  source <(posthorn completion " + sub.Name() + ")"
		}
	}
}

// group makes a noun that its verbs hang on; plural is its alias.
func (r *runner) group(noun, plural, short, example string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: noun, Short: short, Example: example, Args: r.noSuchCommand, RunE: showHelp}
	if plural != "" {
		c.Aliases = []string{plural}
	}
	c.AddCommand(verbs...)
	return c
}

// showHelp is what a command that only has subcommands does by itself.
func showHelp(cmd *cobra.Command, _ []string) error { return cmd.Help() }

// noSuchCommand refuses arguments of a command that only has subcommands.
func (r *runner) noSuchCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
			names = append(names, sub.Aliases...)
		}
	}
	hint := fmt.Sprintf("%q lists the commands.", cmd.CommandPath()+" --help")
	if near := config.Nearest(args[0], names); near != "" {
		hint = fmt.Sprintf("Did you mean %q?", cmd.CommandPath()+" "+near)
	}
	return &fault{exit: ExitUsage, message: fmt.Sprintf("There is no command %q.", cmd.CommandPath()+" "+args[0]), hint: hint}
}

// takes makes a command insist on the named arguments.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		hint := "Usage: " + cmd.UseLine()
		switch {
		case len(args) < len(names):
			return &fault{exit: ExitUsage, message: fmt.Sprintf("The argument %s is missing.", names[len(args)]), hint: hint}
		case len(args) > len(names):
			return &fault{exit: ExitUsage, message: fmt.Sprintf("The argument %q is one too many.", args[len(names)]), hint: hint}
		}
		for i, a := range args {
			if a == "" {
				return &fault{exit: ExitUsage, message: fmt.Sprintf("The argument %s is empty.", names[i]), hint: hint}
			}
		}
		return nil
	}
}

// must is for registrations that fail only when the code is wrong.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func (r *runner) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: takes(),
		Example: "  posthorn version",
		RunE: func(*cobra.Command, []string) error {
			return r.printVersion(posthorn.Version)
		},
	}
}
