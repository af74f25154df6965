package cli

import (
	"fmt"
	"os"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/bench"
)

// benchFlags are what bench knows beyond the load itself.
type benchFlags struct {
	table, quick bool
	runs         int
	plot         string
}

func (r *runner) benchCommand() *cobra.Command {
	c := bench.Default()
	var flags benchFlags
	cmd := &cobra.Command{
		Use: "bench", Short: "Load test a node, with a built-in receiver", Args: takes(),
		Example: `  posthorn bench                                   # as fast as it goes, and how fast the machine would go without it
  posthorn bench --rate 100 --duration 20s         # latency at a steady rate
  posthorn bench --batch 100 --ndjson --conns 8
  posthorn bench --rate 1000 --endpoints 10 --hang 5 --plot latency.svg
  posthorn bench --endpoints 10000 --tenants 1000
  posthorn bench --table                           # all figures that Posthorn is held to, 20 minutes
  posthorn bench --table --quick                   # once and shorter, 3 minutes
  posthorn bench --store postgres://… --nodes 2    # two nodes on PostgreSQL
  posthorn bench --table --store postgres://…      # PostgreSQL beside the embedded store`,
		Long: "Starts a server of its own on a temporary store, with fsync, publishes to it and\n" +
			"receives from it in this process, and removes it again. With --server it takes\n" +
			"a node that runs, on which it makes endpoints and deletes them again; CPU,\n" +
			"memory and disk of that one are not known.\n\n" +
			"Two yardsticks run beside: relay, the same two HTTP hops and a signature with\n" +
			"nothing behind them, and raw, a bare loop of signed requests to the receiver.\n" +
			"Load and receiver share the machine with the server: compare ratios, not rates.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Binary, err = os.Executable(); err != nil {
				return err
			}
			watch, done := r.watchBench()
			c.Watch = watch
			if flags.table {
				return r.benchTable(cmd, c, flags, done)
			}
			if c.Server = r.remote.server; c.Server != "" {
				if c.Token, err = r.token(); err != nil {
					return err
				}
			}
			if err := c.Validate(); err != nil {
				return usage("%s", sentence(err.Error()))
			}
			report, err := bench.Run(cmd.Context(), c)
			done()
			if err != nil {
				return err
			}
			if err := plotTo(flags.plot, report); err != nil {
				return err
			}
			if err := r.printBench(report, func() { report.Print(r.Out) }); err != nil {
				return err
			}
			if report.Lost > 0 {
				return &fault{exit: ExitTestFailed, message: fmt.Sprintf("%d accepted events did not arrive.", report.Lost)}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&flags.table, "table", false, "take all figures that Posthorn is held to; of the load's flags only --dir, --serve-arg and --store count; with --store those of PostgreSQL")
	f.IntVar(&flags.runs, "runs", 5, "with --table: `how many` times; medians are printed")
	f.BoolVar(&flags.quick, "quick", false, "with --table: once, with shorter loads and a tenth of the backlog")
	f.StringVar(&flags.plot, "plot", "", "write latencies and arrivals as a picture to this `file` (SVG)")
	f.Float64Var(&c.Rate, "rate", c.Rate, "`events` a second, published on time; 0 for as fast as answers come")
	f.DurationVar(&c.Duration, "duration", c.Duration, "how long to publish")
	f.IntVar(&c.Conns, "conns", c.Conns, "connections that publish")
	f.IntVar(&c.Batch, "batch", c.Batch, "events in a request")
	f.BoolVar(&c.NDJSON, "ndjson", c.NDJSON, "send batches as lines")
	f.IntVar(&c.BodySize, "body-size", c.BodySize, "`bytes` of an event's data")
	f.IntVar(&c.Endpoints, "endpoints", c.Endpoints, "endpoints in all, which take the events in turn")
	f.IntVar(&c.Tenants, "tenants", c.Tenants, "tenants, which share the endpoints evenly and publish in turn")
	f.IntVar(&c.FanOut, "fan-out", c.FanOut, "`endpoints` that each event goes to")
	f.IntVar(&c.Hang, "hang", c.Hang, "how many endpoints accept and never answer")
	f.IntVar(&c.Fail, "fail", c.Fail, "how many endpoints answer 500")
	f.Float64Var(&c.BadShare, "bad-share", c.BadShare, "`share` of the events that goes to those that hang or fail; 0 for their share of the endpoints")
	f.IntVar(&c.Backlog, "backlog", c.Backlog, "`deliveries` that are pending beforehand, half held and half due later")
	f.BoolVar(&c.Relay, "relay", c.Relay, "measure the relay, too")
	f.BoolVar(&c.Raw, "raw", c.Raw, "measure the bare loop, too")
	f.StringVar(&c.Dir, "dir", c.Dir, "where the temporary store goes; a RAM disk makes fsync free and the figures mean less")
	f.StringArrayVar(&c.ServeArgs, "serve-arg", nil, "a further `flag` of \"posthorn serve\", as --serve-arg=--log-level=warn")
	f.StringVar(&c.Store, "store", "", "`postgres://…`, instead of the embedded store: a server on which to make a database and drop it again")
	f.IntVar(&c.Nodes, "nodes", c.Nodes, "with --store: how many nodes serve it")
	f.StringVar(&r.remote.server, "server", "", "`URL` of a node that runs, instead of one of its own")
	f.StringVar(&r.remote.token, "token", "", "with --server: access `token` of a tenant (better: POSTHORN_TOKEN or --token-file)")
	f.StringVar(&r.remote.tokenFile, "token-file", "", "with --server: `file` that holds the token, - for standard input")
	f.StringVar(&c.Listen, "receive-on", c.Listen, "`address` that the receiver listens on")
	f.StringVar(&c.ReceiverURL, "receiver-url", "", "`URL` by which the node reaches the receiver, if it is another")
	cmd.AddCommand(r.relayCommand())
	return cmd
}

// relayCommand is the yardstick's server, which bench runs as a process.
func (r *runner) relayCommand() *cobra.Command {
	return &cobra.Command{
		Use: "relay URL", Short: "Sign and pass on what comes in", Args: takes("URL"), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return bench.Relay(cmd.Context(), args[0], r.In, r.Out)
		},
	}
}

func (r *runner) benchTable(cmd *cobra.Command, c bench.Config, flags benchFlags, done func()) error {
	plan := bench.Plan{Base: c, Runs: flags.runs, Quick: flags.quick}
	if flags.quick && !cmd.Flags().Changed("runs") {
		plan.Runs = 1
	}
	if plan.Runs < 1 {
		return usage("--runs %d is not at least 1.", plan.Runs)
	}
	table, err := bench.RunTable(cmd.Context(), plan)
	done()
	if err != nil {
		return err
	}
	if err := r.printBench(table, func() { table.Print(r.Out) }); err != nil {
		return err
	}
	if !table.Met() {
		return &fault{exit: ExitTestFailed, message: "Not every row is met."}
	}
	return nil
}

// watchBench shows how a load goes: a bar that is drawn over on a terminal, a
// line for each step elsewhere. done ends the bar.
func (r *runner) watchBench() (watch func(bench.Progress), done func()) {
	if !isTerminal(r.Err) {
		said := ""
		return func(p bench.Progress) {
			if p.What != said {
				said = p.What
				r.say("%s", p.What)
			}
		}, func() {}
	}
	const clear = "\r\x1b[K"
	return func(p bench.Progress) {
		if p.Share < 0 {
			fmt.Fprint(r.Err, clear, p.What)
			return
		}
		const width = 24
		full := int(p.Share * width)
		fmt.Fprintf(r.Err, "%s[%s%s] %6.0f/s  %s", clear, strings.Repeat("#", full), strings.Repeat("-", width-full), p.PerSecond, p.What)
	}, func() { fmt.Fprint(r.Err, clear) }
}

func plotTo(file string, report bench.Report) error {
	if file == "" {
		return nil
	}
	f, err := os.Create(file)
	if err != nil {
		return unwritable(file, err)
	}
	if err := report.Plot(f); err != nil {
		f.Close()
		return unwritable(file, err)
	}
	return f.Close()
}

func unwritable(file string, err error) error {
	return fmt.Errorf("%s cannot be written: %w", file, err)
}

// printBench prints v as JSON or, by asTable, for people.
func (r *runner) printBench(v any, asTable func()) error {
	if r.wantsTable() {
		asTable()
		return nil
	}
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return r.printOne(b)
}
