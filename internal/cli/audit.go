package cli

import (
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) auditCommand() *cobra.Command {
	return r.remoteFlags(r.group("audit", "", "See who changed what",
		"  posthorn audit list --since 1d", r.auditList()))
}

func (r *runner) auditList() *cobra.Command {
	var flags listFlags
	var filter client.AuditFilter
	c := &cobra.Command{
		Use: "list", Short: "List changes, newest first", Args: takes(),
		Annotations: calls("GET /audit"),
		Example: `  posthorn audit list --since 1d
  posthorn audit list --subject wh_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B -o jsonl   # with before and after`,
		Long: "A tenant's token sees the tenant's changes; a platform token with the scope admin\n" +
			"all of the installation's, or with --tenant a tenant's.",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if filter.Since, filter.Until, err = r.period(flags.since, flags.until); err != nil {
				return err
			}
			if err := flags.check(); err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			filter.PageSize = pageSize(flags.limit)
			more := false
			out := r.list("TIME", "TENANT", "ACTOR", "ACTION", "SUBJECT")
			for e, err := range take(api.Audit(cmd.Context(), filter), flags.limit, &more) {
				if err != nil {
					return err
				}
				if err := out.add(e.JSON(), plain, shown(e.At), firstOf(e.Tenant, "(platform)"), e.Actor, e.Action, e.Subject); err != nil {
					return err
				}
			}
			defer r.tellMore(more, flags.limit)
			return out.close("There are no such changes.")
		},
	}
	f := c.Flags()
	f.IntVar(&flags.limit, "limit", 50, "`how many` to print; 0 for all")
	f.StringVar(&flags.since, "since", "", "since: `2h`, 7d or 2026-04-29T09:10:00Z")
	f.StringVar(&flags.until, "until", "", "before this `time`")
	f.StringVar(&filter.Actor, "actor", "", "exactly this `actor`: token:ID, jwt:SUBJECT@ISSUER, cli, posthorn")
	f.StringVar(&filter.Action, "action", "", "exactly this `action`, as endpoint.update")
	f.StringVar(&filter.Subject, "subject", "", "exactly this `id` or name")
	return c
}
