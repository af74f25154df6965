package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) sendingCommand() *cobra.Command {
	return r.remoteFlags(r.group("sending", "", "The brake: stop and start all deliveries of an installation",
		"  posthorn sending pause\n  posthorn sending resume",
		r.sendingSwitch("pause", "Stop all deliveries; events are accepted still",
			"Nothing is sent until \"posthorn sending resume\". Events are accepted and wait.", (*client.Client).PauseSending),
		r.sendingSwitch("resume", "Send what waited, and go on", "Deliveries are sent.", (*client.Client).ResumeSending)))
}

func (r *runner) sendingSwitch(verb, short, said string, do func(*client.Client, context.Context) (*client.Sending, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: short, Args: takes(),
		Annotations: calls("POST /sending/" + verb),
		Example:     "  posthorn sending " + verb,
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			state, err := do(api, cmd.Context())
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(state.JSON())
			}
			r.say("%s", said)
			return nil
		},
	}
}
