package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) replayCommand() *cobra.Command {
	return r.remoteFlags(r.group("replay", "replays", "Send again what an endpoint did not get",
		`  posthorn replay create wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 4h --dry-run
  posthorn replay create wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 4h --rate 50 --wait`,
		r.replayCreate(), r.replayList(), r.replayGet(),
		r.replaySet("pause", "Let a replay rest", (*client.Client).PauseReplay),
		r.replaySet("resume", "Let a replay go on", (*client.Client).ResumeReplay),
		r.replaySet("cancel", "End a replay; what was handed over stays", (*client.Client).CancelReplay)))
}

func (r *runner) replayCreate() *cobra.Command {
	var n client.NewReplay
	var since, until string
	var dryRun, wait bool
	c := &cobra.Command{
		Use: "create ENDPOINT --since TIME", Short: "Send again what failed or expired", Args: takes("ENDPOINT"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("POST /endpoints/{webhookId}/replays", "GET /replays/{replayId}"),
		Long: "What is sent is fixed now. Each delivery begins its schedule anew, with the same webhook-id, and new events go first. " +
			"--missing sends what was never sent because the endpoint did not exist yet. --wait shows how it goes on and ends with 6 if something failed again.",
		Example: `  posthorn replay create wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 4h --dry-run
  posthorn replay create wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 4h --rate 50 --wait
  posthorn replay create wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --since 7d --missing`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if since == "" {
				return usage("--since is needed.").with("As in: --since 4h, or --since 2026-04-29T09:10:00Z.")
			}
			if n.Since, n.Until, err = r.period(since, until); err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			if dryRun {
				plan, err := api.PlanReplay(cmd.Context(), args[0], n)
				if err != nil {
					return err
				}
				return r.printPlan(plan)
			}
			made, err := api.CreateReplay(cmd.Context(), args[0], n)
			if err != nil {
				return err
			}
			if wait {
				return r.awaitReplay(cmd.Context(), api, made)
			}
			if !r.wantsTable() {
				return r.printOne(made.JSON())
			}
			r.say("%s will be sent again. \"posthorn replay get %s\" shows how it goes on.", count(made.Counts.Total, "delivery"), made.ID)
			_, err = fmt.Fprintln(r.Out, printable(made.ID))
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "events accepted since: `2h`, 7d or 2026-04-29T09:10:00Z")
	f.StringVar(&until, "until", "", "events accepted before this `time`")
	f.StringSliceVar(&n.Types, "type", nil, "event `types` or patterns (default all)")
	f.StringSliceVar(&n.States, "state", nil, "`states`: succeeded, failed, canceled, expired (default failed,expired)")
	f.BoolVar(&n.Missing, "missing", false, "what was never sent because the endpoint did not exist yet")
	f.Float64Var(&n.RatePerSecond, "rate", 0, "`how many` in a second at most, 0.1 to 1000 (default no bound)")
	f.BoolVar(&dryRun, "dry-run", false, "only count exactly, and show samples")
	f.BoolVar(&wait, "wait", false, "wait until all has ended, and show how it goes on")
	completes(c, "type", r.typeNames)
	return c
}

func (r *runner) printPlan(plan *client.ReplayPlan) error {
	if !r.wantsTable() {
		return r.printOne(plan.JSON())
	}
	fmt.Fprintf(r.Out, "%d would be sent\n", plan.Total)
	if len(plan.Samples) == 0 {
		return nil
	}
	r.say("The first and the last of them:")
	rows := make([]row, len(plan.Samples))
	for i, s := range plan.Samples {
		rows[i] = row{[]string{shown(s.AcceptedAt), printable(s.EventType), printable(s.Event), printable(orDash(s.Delivery)), printable(orDash(s.State))}, plain}
	}
	return r.table([]string{"ACCEPTED", "TYPE", "EVENT", "DELIVERY", "STATE"}, rows)
}

const (
	// replayLook is the pause between two looks at a replay that is waited for.
	replayLook = 200 * time.Millisecond
	// replayLine is how often a pipe gets a line.
	replayLine = 5 * time.Second
)

// awaitReplay shows how a replay goes on until all has ended: by a bar on a
// terminal, by a line now and then elsewhere.
func (r *runner) awaitReplay(ctx context.Context, api *client.Client, p *client.Replay) (err error) {
	var bar *progressbar.ProgressBar
	if isTerminal(r.Err) && r.getenv("TERM") != "dumb" {
		bar = progressbar.NewOptions(p.Counts.Total, progressbar.OptionSetWriter(r.Err), progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(true), progressbar.OptionSetDescription(p.ID), progressbar.OptionSetWidth(30))
	} else {
		r.say("Sending %s again: %s.", count(p.Counts.Total, "delivery"), p.ID)
	}
	tick := time.NewTicker(replayLook)
	defer tick.Stop()
	told := r.now()
	for !p.Over() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if p, err = api.Replay(ctx, p.ID); err != nil {
			return err
		}
		switch ended := p.Counts.Succeeded + p.Counts.Failed + p.Counts.Skipped; {
		case bar != nil:
			_ = bar.Set(ended) // a terminal that cannot be written to shows nothing
		case r.now().Sub(told) >= replayLine:
			told = r.now()
			r.say("%d of %d, %d failed", ended, p.Counts.Total, p.Counts.Failed)
		}
	}
	if bar != nil {
		fmt.Fprintln(r.Err)
	}
	return r.replayOver(p)
}

// replayOver tells what became of a replay.
func (r *runner) replayOver(p *client.Replay) (err error) {
	r.say("%s", replayLineOf(p))
	if r.wantsTable() {
		_, err = fmt.Fprintln(r.Out, printable(p.ID))
	} else {
		err = r.printOne(p.JSON())
	}
	if err == nil && p.Counts.Failed > 0 {
		err = (&fault{exit: ExitTestFailed, message: fmt.Sprintf("%s of %d failed again.", count(p.Counts.Failed, "delivery"), p.Counts.Total)}).
			with("\"posthorn delivery list --state failed --endpoint %s\" shows them.", p.Endpoint)
	}
	return err
}

func replayLineOf(p *client.Replay) string {
	c := p.Counts
	line := fmt.Sprintf("%s: %d of %d succeeded", p.State, c.Succeeded, c.Total)
	for _, part := range []struct {
		n    int
		what string
	}{{c.Failed, "failed"}, {c.Skipped, "skipped"}, {c.Waiting, "on their way"}} {
		if part.n > 0 {
			line += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return line
}

func (r *runner) replayList() *cobra.Command {
	var endpoint string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List replays, newest first", Args: takes(),
		Annotations: calls("GET /replays"),
		Example:     "  posthorn replay list --endpoint wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			more := false
			out := r.list("ID", "STATE", "ENDPOINT", "TOTAL", "SENT", "SUCCEEDED", "FAILED", "SKIPPED", "CREATED")
			for p, err := range take(api.Replays(cmd.Context(), endpoint), limit, &more) {
				if err != nil {
					return err
				}
				n := p.Counts
				if err := out.add(p.JSON(), plain, p.ID, p.State, p.Endpoint, fmt.Sprint(n.Total), fmt.Sprint(n.Sent), fmt.Sprint(n.Succeeded),
					fmt.Sprint(n.Failed), fmt.Sprint(n.Skipped), shown(p.CreatedAt)); err != nil {
					return err
				}
			}
			defer r.tellMore(more, limit)
			return out.close("There are no replays.")
		},
	}
	c.Flags().StringVar(&endpoint, "endpoint", "", "only of this endpoint (`id`)")
	c.Flags().IntVar(&limit, "limit", 50, "`how many` to print; 0 for all")
	completes(c, "endpoint", r.endpointIDs)
	return c
}

func (r *runner) replayGet() *cobra.Command {
	var wait bool
	c := &cobra.Command{
		Use: "get ID", Short: "Print a replay with its counts", Args: takes("ID"), ValidArgsFunction: first(r.replayIDs),
		Annotations: calls("GET /replays/{replayId}"),
		Example:     "  posthorn replay get rpl_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --wait",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			p, err := api.Replay(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wait {
				return r.awaitReplay(cmd.Context(), api, p)
			}
			return r.printReplay(p)
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "wait until all has ended, and show how it goes on")
	return c
}

func (r *runner) printReplay(p *client.Replay) error {
	if !r.wantsTable() {
		return r.printOne(p.JSON())
	}
	rate := ""
	if p.RatePerSecond > 0 {
		rate = fmt.Sprintf("%g a second", p.RatePerSecond)
	}
	what := strings.Join(p.States, ", ")
	if p.Missing {
		what = "missing"
	}
	n := p.Counts
	return r.fields("id", p.ID, "state", p.State, "endpoint", p.Endpoint, "sends", what, "types", strings.Join(p.Types, ", "),
		"since", shown(p.Since), "until", shown(p.Until), "rate", rate,
		"total", fmt.Sprint(n.Total), "sent", fmt.Sprint(n.Sent), "succeeded", fmt.Sprint(n.Succeeded), "failed", fmt.Sprint(n.Failed),
		"on their way", fmt.Sprint(n.Waiting), "skipped", fmt.Sprint(n.Skipped), "created", shown(p.CreatedAt))
}

func (r *runner) replaySet(verb, short string, do func(*client.Client, context.Context, string) (*client.Replay, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: takes("ID"), ValidArgsFunction: first(r.replayIDs),
		Annotations: calls("POST /replays/{replayId}/" + verb),
		Example:     "  posthorn replay " + verb + " rpl_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			p, err := do(api, cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return r.printReplay(p)
		},
	}
}
