package cli

import (
	"bufio"
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/terminal"
)

func (r *runner) exportCommand() *cobra.Command {
	var flags listFlags
	var file string
	c := r.remoteFlags(&cobra.Command{
		Use: "export", Short: "Write endpoints, events and deliveries as JSON lines", Args: takes(),
		Annotations: calls("POST /exports", "GET /exports/{exportId}/content"),
		Example: `  posthorn export > everything.jsonl
  posthorn export --since 7d --file week.jsonl`,
		Long: "One JSON object a line: {\"endpoint\":…}, then {\"event\":…} with its data and its\n" +
			"{\"delivery\":…} lines with their attempts, newest first, and at last {\"end\":…}, which\n" +
			"counts them. No secret is in it. The export is audited.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			since, until, err := r.period(flags.since, flags.until)
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			e, err := api.CreateExport(cmd.Context(), client.ExportBounds{Since: since, Until: until})
			if err != nil {
				return err
			}
			out, done := r.Out, func() error { return nil }
			if isTerminal(out) {
				out = terminal.Lines(out)
			}
			if file != "" {
				f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
				if err != nil {
					return err
				}
				defer f.Close()
				out, done = f, func() error { return errors.Join(f.Sync(), f.Close()) }
			}
			buffered := bufio.NewWriterSize(out, 64<<10)
			n, err := api.DownloadExport(cmd.Context(), e.ID, buffered)
			if err = errors.Join(err, buffered.Flush()); err == nil {
				err = done()
			}
			if err != nil {
				return err
			}
			r.say("Exported %s, %s, %s.", count(n.Endpoints, "endpoint"), count(n.Events, "event"), count(n.Deliveries, "delivery"))
			return nil
		},
	})
	c.Flags().StringVar(&flags.since, "since", "", "events accepted since: `2h`, 7d or 2026-04-29T09:10:00Z")
	c.Flags().StringVar(&flags.until, "until", "", "events accepted before this `time`")
	c.Flags().StringVar(&file, "file", "", "write to a new `file`, readable by you only, instead of standard output")
	return c
}
