package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/catalog"
	"github.com/posthorn/posthorn/internal/check"
)

func (r *runner) checkCommand() *cobra.Command {
	var secretFile, typ string
	c := &cobra.Command{
		Use: "check URL", Short: "Find out what a receiver of webhooks does wrong", Args: takes("URL"),
		Example: `  posthorn check http://localhost:3000/hooks --secret-file secret.txt
  posthorn check https://partner.example.com/hooks --type cases.updated -o json`,
		Long: "Sends the receiver what it will meet one day, signed with its secret: good, repeated,\n" +
			"slow and large requests, two signatures, an unknown type, which it should acknowledge;\n" +
			"and forged, altered and stale ones, which it should refuse. It says in a sentence what\n" +
			"is wrong, and exits with 6 when something is. All requests are marked as tests\n" +
			"(posthorn-test: true) and sent from this machine, also to its own addresses and to\n" +
			"private ones; no server is needed. Whether a repeated event is worked on once, the\n" +
			"receiver's owner has to see.",
		RunE: func(cmd *cobra.Command, args []string) error {
			target := check.Target{URL: args[0], UserAgent: "Posthorn/" + posthorn.Version}
			if typ != "" {
				t, found := catalog.Builtin().Lookup(typ)
				if !found || t.Example == nil || strings.HasSuffix(typ, ".*") {
					return usage("The catalogue has no example of %s.", typ).with("\"posthorn event-type list\" lists the types of a server; check knows the built-in ones.")
				}
				target.Type, target.Data = typ, t.Example
			}
			secrets, err := r.secrets(secretFile)
			if err != nil {
				return err
			}
			if len(secrets) > 1 {
				return usage("Several secrets were given; the receiver is checked with one.")
			}
			target.Secret = secrets[0]
			return r.check(cmd, target)
		},
	}
	secretFlag(c, &secretFile)
	c.Flags().StringVar(&typ, "type", "", "send the catalogue's example of this event `type` (default webhooks.ping)")
	must(c.RegisterFlagCompletionFunc("type", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		var names []string
		for _, t := range catalog.Builtin().Types() {
			if t.Example != nil && !strings.HasSuffix(t.Name, ".*") {
				names = append(names, t.Name)
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}))
	return c
}

func (r *runner) check(cmd *cobra.Command, target check.Target) error {
	var failed, warned, skipped, n int
	var broken error
	out := r.list()
	err := check.Run(cmd.Context(), target, func(f check.Finding) {
		n++
		tone := green
		switch f.Grade {
		case check.Failed:
			failed++
			tone = red
		case check.Warning:
			warned++
			tone = yellow
		case check.Skipped:
			tone = plain
			skipped++
		}
		if !r.wantsTable() {
			broken = firstError(broken, out.add(toJSON(f), tone))
			return
		}
		if f.Grade == check.Skipped {
			return // the good request's failure says it all
		}
		took := ""
		if f.Status != 0 {
			took = " (" + span(f.DurationMS) + ")"
		}
		line := fmt.Sprintf("%-8s%-15s %s: %s%s", f.Grade, f.Check, f.What, f.Says, took)
		_, err := fmt.Fprintln(r.Out, r.paint(r.Out, tone, printable(line)))
		broken = firstError(broken, err)
	})
	switch {
	case cmd.Context().Err() != nil:
		return err
	case err != nil:
		return usage("%s", sentence(err.Error()))
	}
	if !r.wantsTable() {
		broken = firstError(broken, out.close(""))
	}
	switch {
	case broken != nil:
		return broken
	case skipped > 0:
		return (&fault{exit: ExitTestFailed, message: fmt.Sprintf("%s does not acknowledge a good request.", target.URL)}).
			with("The other %s were not made: they show nothing as long as it does not.", count(skipped, "check"))
	case failed > 0:
		return &fault{exit: ExitTestFailed, message: fmt.Sprintf("%d of %s failed: %s does not do what a receiver should.", failed, count(n, "check"), target.URL)}
	case warned > 0:
		r.say("%s, none failed, %s to look at.", count(n, "check"), count(warned, "warning"))
		return nil
	}
	r.say("%s, all well.", count(n, "check"))
	return nil
}

func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
