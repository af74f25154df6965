package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
)

func (r *runner) endpointTest() *cobra.Command {
	var eventType, timeout string
	c := &cobra.Command{
		Use: "test ID", Short: "Send a test to an endpoint and print what came of it", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("POST /endpoints/{webhookId}/test", "GET /deliveries/{deliveryId}"),
		Example: `  posthorn endpoint test wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW
  posthorn endpoint test wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --type cases.updated`,
		Long: "Sends webhooks.ping, or the catalogue's example of --type, to this endpoint alone,\n" +
			"marked by posthorn-test: true, and waits for the answer. It exits with 6 unless the\n" +
			"receiver acknowledged. A test changes neither health nor statistics.",
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := config.ParseDuration(timeout)
			if err != nil {
				return usage("--timeout: %v.", err)
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			test, err := api.TestEndpoint(cmd.Context(), args[0], eventType)
			if err != nil {
				return err
			}
			d, err := attempted(cmd.Context(), api, test.Delivery, limit)
			if err != nil {
				return err
			}
			return r.printTest(test, d)
		},
	}
	c.Flags().StringVar(&eventType, "type", "", "event `type` whose example is sent (default webhooks.ping)")
	c.Flags().StringVar(&timeout, "timeout", "45s", "how `long` to wait for the answer")
	completes(c, "type", r.typeNames)
	return c
}

// attempted waits for a delivery's first attempt.
func attempted(ctx context.Context, api *client.Client, id string, limit time.Duration) (*client.Delivery, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errWaited)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		d, err := api.Delivery(ctx, id)
		switch {
		case err == nil && (settled(d) || len(d.Attempts) > 0):
			return d, nil
		case err != nil && context.Cause(ctx) != errWaited:
			return nil, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited {
				return nil, (&fault{exit: ExitTestFailed, message: fmt.Sprintf("After %s the test had not been attempted.", config.FormatDuration(limit))}).
					with("\"posthorn delivery get %s\" shows how it goes on.", id)
			}
			return nil, ctx.Err()
		}
	}
}

// printTest prints the result, and fails if the receiver did.
func (r *runner) printTest(test *client.EndpointTest, d *client.Delivery) error {
	var a client.Attempt
	if n := len(d.Attempts); n > 0 {
		a = d.Attempts[n-1]
	}
	if !r.wantsTable() {
		if err := r.printOne(d.JSON()); err != nil {
			return err
		}
	} else {
		status, time := "", ""
		if a.Status != 0 {
			status = fmt.Sprint(a.Status)
		}
		if a.Number != 0 {
			if time = took(a.DurationMS); phases(a.Timings) != "" {
				time += " (" + phases(a.Timings) + ")"
			}
		}
		if err := r.fields("event", test.ID, "type", test.Type, "delivery", d.ID, "state", d.State,
			"status", status, "class", a.Class, "took", time, "result", a.Explanation, "reason", d.Reason,
			"answer", strings.TrimSpace(a.ResponseBody)); err != nil {
			return err
		}
	}
	if d.State != "succeeded" {
		return &fault{exit: ExitTestFailed, message: "The receiver did not acknowledge the test."}
	}
	return nil
}
