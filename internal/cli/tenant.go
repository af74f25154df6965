package cli

import (
	"context"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func (r *runner) tenantCommand() *cobra.Command {
	return r.storeFlags(r.group("tenant", "tenants", "Manage the platform's partners, on the store",
		"  posthorn tenant create acme\n  posthorn tenant suspend acme",
		r.tenantCreate(), r.tenantList(), r.tenantDelete(), r.tenantDeletions(),
		r.tenantSwitch("suspend", true, "Refuse a tenant's publishing and hold its deliveries", "Tenant %s is suspended: its publishing is refused and its deliveries are held."),
		r.tenantSwitch("resume", false, "End a tenant's suspension", "Tenant %s is active.")))
}

// tenantJSON is a tenant as the API shows it.
func tenantJSON(t posthorn.Tenant) jsontext.Value {
	return toJSON(struct {
		Name      string  `json:"name"`
		CreatedAt *string `json:"created_at"`
		Suspended bool    `json:"suspended"`
	}{t.Name, milliseconds(t.CreatedAt), t.Suspended()})
}

func checkTenantName(name string) error {
	if !posthorn.ValidTenantName(name) {
		return usage("%q is not a tenant's name.", name).with("It has 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit.")
	}
	return nil
}

func (r *runner) tenantCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create NAME", Short: "Create a tenant", Args: takes("NAME"),
		Annotations: like("POST /tenants"),
		Example:     "  posthorn tenant create acme",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkTenantName(args[0]); err != nil {
				return err
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				t, err := s.CreateTenant(ctx, r.change(), args[0])
				if err != nil {
					return storeFault(err, "tenant", args[0])
				}
				if !r.wantsTable() {
					return r.printOne(tenantJSON(t))
				}
				r.say("Tenant %s is created.", t.Name)
				return nil
			})
		},
	}
}

// storePage is how many rows are asked for at a time.
const storePage = 250

func (r *runner) tenantList() *cobra.Command {
	var flags listFlags
	c := &cobra.Command{
		Use: "list", Short: "List tenants, newest first", Args: takes(),
		Annotations: like("GET /tenants", "GET /tenants/{name}"),
		Example:     "  posthorn tenant list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				out := r.list("NAME", "STATE", "CREATED")
				more := false
				all := pages(func(before int64) ([]posthorn.Tenant, int64, error) {
					page, err := s.Tenants(ctx, before, storePage)
					if err != nil || len(page) == 0 {
						return nil, 0, err
					}
					return page, page[len(page)-1].ID, nil
				})
				for t, err := range take(all, flags.limit, &more) {
					if err != nil {
						return err
					}
					state, tone := "active", plain
					if t.Suspended() {
						state, tone = "suspended", yellow
					}
					if err := out.add(tenantJSON(t), tone, t.Name, state, shown(t.CreatedAt)); err != nil {
						return err
					}
				}
				defer r.tellMore(more, flags.limit)
				return out.close("There are no tenants. \"posthorn tenant create NAME\" makes one.")
			})
		},
	}
	flags.add(c, false)
	return c
}

// pages iterates over lists that are read below an id; next returns a page and
// its last id, or none.
func pages[T any](next func(before int64) ([]T, int64, error)) func(func(T, error) bool) {
	return func(yield func(T, error) bool) {
		var zero T
		before := int64(0)
		for {
			page, last, err := next(before)
			if err != nil {
				yield(zero, err)
				return
			}
			for _, item := range page {
				if !yield(item, nil) {
					return
				}
			}
			if len(page) < storePage {
				return
			}
			before = last
		}
	}
}

func (r *runner) withTenant(cmd *cobra.Command, name string, fn func(context.Context, Store, posthorn.Tenant) error) error {
	return r.withStore(cmd, func(ctx context.Context, s Store) error {
		t, err := s.TenantByName(ctx, name)
		if err != nil {
			return storeFault(err, "tenant", name)
		}
		return fn(ctx, s, t)
	})
}

func (r *runner) tenantSwitch(verb string, suspend bool, short, said string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: short, Args: takes("NAME"), ValidArgsFunction: first(r.knownTenants),
		Annotations: like("POST /tenants/{name}/" + verb),
		Example:     "  posthorn tenant " + verb + " acme",
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.withTenant(cmd, args[0], func(ctx context.Context, s Store, t posthorn.Tenant) error {
				t, err := s.SuspendTenant(ctx, r.change(), t.ID, suspend)
				if err != nil {
					return storeFault(err, "tenant", args[0])
				}
				if !r.wantsTable() {
					return r.printOne(tenantJSON(t))
				}
				r.say(said, t.Name)
				return nil
			})
		},
	}
}

// tenantNames resolves ids of tenants, each once.
type tenantNames struct {
	tenants store.Tenants
	known   map[int64]string
}

// name returns the tenant's name; "" for the platform.
func (n *tenantNames) name(ctx context.Context, id int64) (string, error) {
	if id == 0 {
		return "", nil
	}
	if name, ok := n.known[id]; ok {
		return name, nil
	}
	t, err := n.tenants.TenantByID(ctx, id)
	if err != nil {
		return "", err
	}
	n.known[id] = t.Name
	return t.Name, nil
}
