package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
)

func (r *runner) tenantDelete() *cobra.Command {
	var yes, wait bool
	var timeout string
	c := &cobra.Command{
		Use: "delete NAME", Short: "Delete a tenant with all that belongs to it", Args: takes("NAME"), ValidArgsFunction: first(r.knownTenants),
		Annotations: like("DELETE /tenants/{name}"),
		Example:     "  posthorn tenant delete acme --yes --wait",
		Long: "The tenant is unknown at once; the service erases what it had in the background. With\n" +
			"--wait the command ends when nothing is left, and reports what was erased.",
		RunE: func(cmd *cobra.Command, args []string) error {
			atMost, err := config.ParseDuration(timeout)
			if err != nil {
				return usage("--timeout %q is not a duration such as 90s or 10m.", timeout)
			}
			return r.withTenant(cmd, args[0], func(ctx context.Context, s Store, t posthorn.Tenant) error {
				question := fmt.Sprintf("Delete tenant %s with its tokens, endpoints, events and deliveries?", t.Name)
				if err := r.confirm(ctx, yes, question); err != nil {
					return err
				}
				if err := s.DeleteTenant(ctx, r.change(), t.ID); err != nil {
					return storeFault(err, "tenant", args[0])
				}
				r.say("Tenant %s is deleted.", t.Name)
				if !wait {
					return nil
				}
				return r.awaitDeletion(ctx, s, t, atMost)
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	c.Flags().BoolVar(&wait, "wait", false, "wait until the service has erased all, and report what that was")
	c.Flags().StringVar(&timeout, "timeout", "10m", "how `long` --wait waits")
	return c
}

// awaitDeletion polls the account of a tenant's deletion until it is complete.
func (r *runner) awaitDeletion(ctx context.Context, s Store, t posthorn.Tenant, atMost time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, atMost, errWaited)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all, err := s.Deletions(ctx, t.ID+1, 1)
		if err != nil && context.Cause(ctx) != errWaited {
			return err
		}
		if len(all) == 1 && all[0].Tenant == t.ID && !all[0].CompletedAt.IsZero() {
			return r.printDeletion(&all[0])
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited {
				return (&fault{exit: ExitFailed, message: fmt.Sprintf("After %s not all of tenant %s was erased.", config.FormatDuration(atMost), t.Name)}).
					with("A running service erases it; \"posthorn tenant deletions\" shows how far it is.")
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *runner) printDeletion(d *store.Deletion) error {
	if !r.wantsTable() {
		return r.printOne(deletionJSON(d))
	}
	return r.fields("tenant", d.Name, "deleted", shown(d.DeletedAt), "completed", shown(d.CompletedAt),
		"endpoints", fmt.Sprint(d.Endpoints), "secrets", fmt.Sprint(d.Secrets), "tokens", fmt.Sprint(d.Tokens),
		"events", fmt.Sprint(d.Events), "payload bytes", fmt.Sprint(d.PayloadBytes), "deliveries", fmt.Sprint(d.Deliveries))
}

// deletionJSON is a deletion as the API shows it.
func deletionJSON(d *store.Deletion) jsontext.Value {
	return toJSON(struct {
		Tenant       string  `json:"tenant"`
		DeletedAt    *string `json:"deleted_at"`
		CompletedAt  *string `json:"completed_at"`
		Endpoints    int64   `json:"endpoints"`
		Secrets      int64   `json:"secrets"`
		Tokens       int64   `json:"tokens"`
		Events       int64   `json:"events"`
		PayloadBytes int64   `json:"payload_bytes"`
		Deliveries   int64   `json:"deliveries"`
	}{d.Name, milliseconds(d.DeletedAt), milliseconds(d.CompletedAt), d.Endpoints, d.Secrets, d.Tokens, d.Events, d.PayloadBytes, d.Deliveries})
}

func (r *runner) tenantDeletions() *cobra.Command {
	var flags listFlags
	c := &cobra.Command{
		Use: "deletions", Short: "List deleted tenants and what was erased of them", Args: takes(),
		Annotations: like("GET /deletions"),
		Example:     "  posthorn tenant deletions",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				out := r.list("TENANT", "DELETED", "COMPLETED", "ENDPOINTS", "EVENTS", "PAYLOAD BYTES", "DELIVERIES")
				more := false
				all := pages(func(before int64) ([]store.Deletion, int64, error) {
					page, err := s.Deletions(ctx, before, storePage)
					if err != nil || len(page) == 0 {
						return nil, 0, err
					}
					return page, page[len(page)-1].Tenant, nil
				})
				for d, err := range take(all, flags.limit, &more) {
					if err != nil {
						return err
					}
					tone := plain
					if d.CompletedAt.IsZero() {
						tone = yellow
					}
					if err := out.add(deletionJSON(&d), tone, d.Name, shown(d.DeletedAt), orDash(shown(d.CompletedAt)),
						fmt.Sprint(d.Endpoints), fmt.Sprint(d.Events), fmt.Sprint(d.PayloadBytes), fmt.Sprint(d.Deliveries)); err != nil {
						return err
					}
				}
				defer r.tellMore(more, flags.limit)
				return out.close("No tenant was deleted.")
			})
		},
	}
	flags.add(c, false)
	return c
}
