package cli

import (
	"fmt"
	"os"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/bench"
)

func (r *runner) benchCommand() *cobra.Command {
	c := bench.Default()
	var suite bool
	cmd := &cobra.Command{
		Use: "bench", Short: "Load test a node, with a built-in receiver", Args: takes(),
		Example: `  posthorn bench                                   # as fast as it goes, and how fast the machine would go without it
  posthorn bench --rate 100 --duration 20s         # latency at a steady rate
  posthorn bench --rate 1000 --endpoints 10 --hang 5
  posthorn bench --suite                           # all figures that Posthorn is held to, 3 minutes`,
		Long: "Starts a server of its own on a temporary store, with fsync, publishes to it and\n" +
			"receives from it in this process, and removes it again. It touches no other\n" +
			"server. Load and receiver share the machine with the server: the CPU per event\n" +
			"says what each took.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var err error
			if c.Binary, err = os.Executable(); err != nil {
				return err
			}
			if suite {
				if !cmd.Flags().Changed("duration") {
					c.Duration = time.Minute
				}
				return r.benchSuite(cmd, c)
			}
			if err := c.Validate(); err != nil {
				return usage("%s", sentence(err.Error()))
			}
			report, err := bench.Run(cmd.Context(), c)
			if err != nil {
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
	f.BoolVar(&suite, "suite", false, "take all figures that Posthorn is held to; of the load only --duration counts, for isolation (1m)")
	f.Float64Var(&c.Rate, "rate", c.Rate, "`events` a second, published on time; 0 for as fast as answers come")
	f.DurationVar(&c.Duration, "duration", c.Duration, "how long to publish")
	f.IntVar(&c.Conns, "conns", c.Conns, "connections that publish")
	f.IntVar(&c.Batch, "batch", c.Batch, "events in a request")
	f.IntVar(&c.BodySize, "body-size", c.BodySize, "`bytes` of an event's data")
	f.IntVar(&c.Endpoints, "endpoints", c.Endpoints, "endpoints that take the events in turn")
	f.IntVar(&c.Hang, "hang", c.Hang, "how many of them accept and never answer")
	f.IntVar(&c.Fail, "fail", c.Fail, "how many of them answer 500")
	f.BoolVar(&c.Raw, "raw", c.Raw, "measure load and receiver without Posthorn between them, too")
	f.StringVar(&c.Dir, "dir", c.Dir, "where the temporary store goes; a RAM disk makes fsync free and the figures mean less")
	f.StringArrayVar(&c.ServeArgs, "serve-arg", nil, "a further `flag` of \"posthorn serve\", as --serve-arg=--log-level=warn")
	return cmd
}

func (r *runner) benchSuite(cmd *cobra.Command, c bench.Config) error {
	suite, err := bench.RunSuite(cmd.Context(), c, func(what string) { r.say("%s", what) })
	if err != nil {
		return err
	}
	if err := r.printBench(suite, func() { suite.Print(r.Out) }); err != nil {
		return err
	}
	if !suite.Met() {
		return &fault{exit: ExitTestFailed, message: "Not every bar is met."}
	}
	return nil
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
