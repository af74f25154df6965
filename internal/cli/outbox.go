package cli

import (
	"github.com/spf13/cobra"
)

func (r *runner) outboxCommand() *cobra.Command {
	return r.remoteFlags(r.group("outbox", "", "What programs published within the database and was refused",
		"  posthorn outbox list\n  posthorn outbox retry 42",
		r.outboxList(), r.outboxRetry(), r.outboxDrop()))
}

func (r *runner) outboxList() *cobra.Command {
	var flags listFlags
	var waiting bool
	c := &cobra.Command{
		Use: "list", Short: "List events of the outbox that were refused, newest first", Args: takes(),
		Annotations: calls("GET /outbox"),
		Example:     "  posthorn outbox list\n  posthorn outbox list --waiting",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			state, none := "refused", "No event of the outbox was refused."
			if waiting {
				state, none = "waiting", "No event waits in the outbox."
			}
			out := r.list("ID", "TENANT", "TYPE", "EVENT", "PUBLISHED", "REASON")
			more := false
			for o, err := range take(api.Outbox(cmd.Context(), state), flags.limit, &more) {
				if err != nil {
					return err
				}
				if err := out.add(o.JSON(), plain, o.ID, orDash(o.Tenant), o.Type, orDash(o.EventID), shown(o.At), orDash(o.Reason)); err != nil {
					return err
				}
			}
			defer r.tellMore(more, flags.limit)
			return out.close(none)
		},
	}
	flags.add(c, false)
	c.Flags().BoolVar(&waiting, "waiting", false, "list those that wait to be published instead")
	return c
}

func (r *runner) outboxRetry() *cobra.Command {
	return &cobra.Command{
		Use: "retry ID", Short: "Publish a refused event again, when what was wrong is mended", Args: takes("ID"), ValidArgsFunction: first(r.outboxIDs),
		Annotations: calls("POST /outbox/{outboxId}/retry"),
		Example:     "  posthorn outbox retry 42",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			o, err := api.RetryOutbox(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(o.JSON())
			}
			r.say("Event %s of the outbox is published again; \"posthorn outbox list\" shows it if it is refused once more.", o.ID)
			return nil
		},
	}
}

func (r *runner) outboxDrop() *cobra.Command {
	return &cobra.Command{
		Use: "drop ID", Short: "Remove a refused event, which is then never published", Args: takes("ID"), ValidArgsFunction: first(r.outboxIDs),
		Annotations: calls("DELETE /outbox/{outboxId}"),
		Example:     "  posthorn outbox drop 42",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			if err := api.DropOutbox(cmd.Context(), args[0]); err != nil {
				return err
			}
			r.say("Event %s of the outbox is dropped.", args[0])
			return nil
		},
	}
}
