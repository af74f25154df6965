package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
)

// followFlags say what "event tail" and "listen" follow.
type followFlags struct {
	types     []string
	endpoint  string
	reconnect string
}

func (f *followFlags) add(r *runner, c *cobra.Command) {
	flags := c.Flags()
	flags.StringSliceVar(&f.types, "types", nil, "event types or `patterns`, such as 'cases.*' (repeatable; default all but operational ones)")
	flags.StringVar(&f.endpoint, "endpoint", "", "only what matched this endpoint's `id` when it was published")
	flags.StringVar(&f.reconnect, "reconnect-for", "10m", "how `long` a lost connection is tried again before it exits with 7")
	completes(c, "types", r.typeNames)
	completes(c, "endpoint", r.endpointIDs)
}

// follow calls deal with each event until the command is interrupted. A lost
// connection is made again, and no event is missed.
func (r *runner) follow(ctx context.Context, f *followFlags, began func(), deal func(*client.Streamed) error) error {
	patience, err := config.ParseDuration(f.reconnect)
	if err != nil {
		return usage("--reconnect-for: %v.", err)
	}
	if patience <= 0 {
		patience = -1
	}
	api, err := r.client()
	if err != nil {
		return err
	}
	connected, lost := false, false
	o := client.StreamOptions{Types: f.types, Endpoint: f.endpoint, Patience: patience, Changed: func(why error) {
		switch {
		case why != nil && !lost:
			lost = true
			r.say("%s The connection is lost (%s); trying again.", clock(r.now()), printable(sentence(why.Error())))
		case why == nil && lost:
			lost = false
			r.say("%s Connected again; going on where it broke off.", clock(r.now()))
		case why == nil && !connected:
			connected = true
			began()
		}
	}}
	for e, err := range api.Stream(ctx, o) {
		if err != nil {
			return r.followed(ctx, connected, err)
		}
		if err := deal(e); err != nil {
			return err
		}
	}
	return nil
}

// followed says what ended a stream.
func (r *runner) followed(ctx context.Context, connected bool, err error) error {
	if ctx.Err() != nil {
		return nil // Ctrl-C is how it ends
	}
	e, answered := errors.AsType[*client.Error](err)
	if connected && answered && e.Status >= 500 {
		return &fault{exit: ExitUnreachable, message: sentence(e.Summary()), requestID: e.RequestID, err: err}
	}
	return err
}

func clock(t time.Time) string { return t.Format("15:04:05.000") }

func (r *runner) eventTail() *cobra.Command {
	var flags followFlags
	c := &cobra.Command{
		Use: "tail", Short: "Print events as they are published", Args: takes(),
		Annotations: calls("GET /stream"),
		Example: `  posthorn event tail --types 'cases.*'
  posthorn event tail -o jsonl | jq .data`,
		Long: "Prints a line for each event until Ctrl-C; -o json and -o jsonl print the event\n" +
			"as endpoints receive it. It makes no endpoint and no delivery.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			began := func() { r.say("Following; Ctrl-C ends it.") }
			return r.follow(cmd.Context(), &flags, began, func(e *client.Streamed) error {
				if !r.wantsTable() {
					return r.printJSON(e.Body, false)
				}
				mark := ""
				if e.Test {
					mark = "  test"
				}
				_, err := fmt.Fprintf(r.Out, "%s  %-28s  %s  %d B%s\n", clock(e.Timestamp.Local()), printable(e.Type), printable(e.ID), len(e.Body), mark)
				return err
			})
		},
	}
	flags.add(r, c)
	return c
}
