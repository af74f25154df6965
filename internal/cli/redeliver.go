package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) deliveryRetry() *cobra.Command {
	var wait waitFlags
	c := &cobra.Command{
		Use: "retry ID", Short: "Attempt a delivery once more, now", Args: takes("ID"), ValidArgsFunction: first(r.deliveryIDs),
		Annotations: calls("POST /deliveries/{deliveryId}/retry", "GET /deliveries/{deliveryId}"),
		Long:        "Works in any state, with the same webhook-id. A success makes it succeeded; a failure leaves a final state as it is. --wait shows what came of it and ends with 6 if the receiver did not take it.",
		Example: `  posthorn delivery retry dlv_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B
  posthorn delivery retry dlv_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --wait`,
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := wait.limit()
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			d, err := api.RetryDelivery(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if wait.wait {
				r.say("Queued: it is attempted now.")
				return r.awaitRetried(cmd.Context(), api, d, limit)
			}
			if !r.wantsTable() {
				return r.printOne(d.JSON())
			}
			r.say("Queued: it is attempted now. \"posthorn delivery get %s\" shows what came of it.", d.ID)
			_, err = fmt.Fprintln(r.Out, printable(d.ID))
			return err
		},
	}
	wait.add(c)
	return c
}

func (r *runner) deliveryCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel a delivery that waits", Args: takes("ID"), ValidArgsFunction: first(r.deliveryIDs),
		Annotations: calls("POST /deliveries/{deliveryId}/cancel"),
		Example:     "  posthorn delivery cancel dlv_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			d, err := api.CancelDelivery(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(d.JSON())
			}
			r.say("Canceled; no new attempt begins.")
			_, err = fmt.Fprintln(r.Out, printable(d.ID))
			return err
		},
	}
}

func (r *runner) eventResend() *cobra.Command {
	var endpoint string
	var wait waitFlags
	c := &cobra.Command{
		Use: "resend ID", Short: "Attempt an event's deliveries once more, now", Args: takes("ID"), ValidArgsFunction: first(r.eventIDs),
		Annotations: calls("POST /events/{eventId}/resend", "GET /events/{eventId}"),
		Example: `  posthorn event resend evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B
  posthorn event resend evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --endpoint wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --wait`,
		RunE: func(cmd *cobra.Command, args []string) error {
			limit, err := wait.limit()
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			if wait.wait {
				return r.resendAndWait(cmd.Context(), api, args[0], endpoint, limit)
			}
			e, err := api.ResendEvent(cmd.Context(), args[0], endpoint)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(e.JSON())
			}
			return r.printResent(e)
		},
	}
	wait.add(c)
	c.Flags().StringVar(&endpoint, "endpoint", "", "only to this endpoint (`id`)")
	completes(c, "endpoint", r.endpointIDs)
	return c
}

func (r *runner) printResent(e *client.Resent) error {
	r.say("Queued: %s.", count(e.Queued, "delivery"))
	rows := make([]row, len(e.Deliveries))
	for i, d := range e.Deliveries {
		state, tone := "queued", plain
		if !d.Queued {
			state, tone = d.Refused, yellow
		}
		rows[i] = row{[]string{printable(d.ID), printable(state)}, tone}
	}
	return r.table([]string{"DELIVERY", "STATE"}, rows)
}

func (r *runner) eventCancel() *cobra.Command {
	return &cobra.Command{
		Use: "cancel ID", Short: "Cancel all deliveries of an event that wait", Args: takes("ID"), ValidArgsFunction: first(r.eventIDs),
		Annotations: calls("POST /events/{eventId}/cancel"),
		Example:     "  posthorn event cancel evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			e, err := api.CancelEvent(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(e.JSON())
			}
			_, err = fmt.Fprintf(r.Out, "%d canceled\n", e.Canceled)
			return err
		},
	}
}

func (r *runner) endpointCancelPending() *cobra.Command {
	var f client.PendingFilter
	var until string
	var yes bool
	c := &cobra.Command{
		Use: "cancel-pending ID", Short: "Cancel what waits for an endpoint", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("POST /endpoints/{webhookId}/cancel-pending"),
		Example: `  posthorn endpoint cancel-pending wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --dry-run
  posthorn endpoint cancel-pending wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --type 'cases.*' --until 2h --yes`,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if f.Until, err = r.moment("until", until, -1); err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			if !f.DryRun {
				plan := f
				plan.DryRun = true
				would, err := api.CancelPending(cmd.Context(), args[0], plan, nil)
				if err != nil {
					return err
				}
				f.Until = would.Until
				if err := r.confirm(cmd.Context(), yes, fmt.Sprintf("Cancel %s of %s?", count(would.Canceled, "delivery"), args[0])); err != nil {
					return err
				}
			}
			done, err := api.CancelPending(cmd.Context(), args[0], f, nil)
			if err != nil {
				if done.Canceled > 0 {
					r.say("%s were canceled before that.", count(done.Canceled, "delivery"))
				}
				return err
			}
			if !r.wantsTable() {
				return r.printOne(toJSON(done))
			}
			what := "canceled"
			if f.DryRun {
				what = "would be canceled"
			}
			_, err = fmt.Fprintf(r.Out, "%d %s\n", done.Canceled, what)
			return err
		},
	}
	fl := c.Flags()
	fl.StringSliceVar(&f.States, "state", nil, "`states`: pending, held (default both)")
	fl.StringSliceVar(&f.Types, "type", nil, "event `types` or patterns (default all)")
	fl.StringVar(&until, "until", "", "only what was accepted before this `time`")
	fl.BoolVar(&f.DryRun, "dry-run", false, "only count")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	completes(c, "type", r.typeNames)
	return c
}
