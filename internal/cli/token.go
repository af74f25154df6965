package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/store"
)

func (r *runner) tokenCommand() *cobra.Command {
	return r.storeFlags(r.group("token", "tokens", "Make and delete access tokens, on the store",
		`  export POSTHORN_TOKEN=$(posthorn token create --tenant acme)
  posthorn token list`,
		r.tokenCreate(), r.tokenList(), r.tokenDelete()))
}

type tokenFlags struct {
	tenant, name, expires string
	platform              bool
	scopes                []string
}

func (r *runner) tokenCreate() *cobra.Command {
	var flags tokenFlags
	c := &cobra.Command{
		Use: "create --tenant NAME|--platform", Short: "Create an access token and print it, alone", Args: takes(),
		Annotations: like("POST /tokens"),
		Example: `  posthorn token create --tenant acme
  posthorn token create --tenant acme --scope events:publish --expires 90d
  posthorn token create --platform --scope admin --scope events:publish`,
		Long: "Prints the token, alone, on standard output; it cannot be shown again.\n" +
			"A token of a tenant sees that tenant only; makes the tenant if it is not there.\n" +
			"A token of the platform names the tenant with each request.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			expires, err := r.checkToken(&flags)
			if err != nil {
				return err
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				return r.makeToken(ctx, s, flags, expires)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&flags.tenant, "tenant", "", "`tenant` whose token it is; the tenant is made if it is not there")
	f.BoolVar(&flags.platform, "platform", false, "a token of the platform, for all tenants")
	f.StringSliceVar(&flags.scopes, "scope", nil, "`scope`: "+strings.Join(access.Scopes(), ", ")+" (repeatable; default "+strings.Join(access.DefaultScopes(), ", ")+")")
	f.StringVar(&flags.name, "name", "", "a `label`, to tell tokens apart")
	f.StringVar(&flags.expires, "expires", "", "`when` it ends: 90d or 2027-01-01T00:00:00Z (default never)")
	completes(c, "tenant", r.knownTenants)
	must(c.RegisterFlagCompletionFunc("scope", cobra.FixedCompletions(access.Scopes(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func (r *runner) checkToken(flags *tokenFlags) (expires time.Time, err error) {
	switch {
	case flags.platform && flags.tenant != "":
		return expires, usage("--tenant and --platform exclude each other.")
	case !flags.platform && flags.tenant == "":
		return expires, usage("Whose token is it to be?").with("Give --tenant NAME, or --platform for one that reaches all tenants.")
	case len(flags.name) > 100:
		return expires, usage("--name is longer than 100 bytes.")
	case printable(flags.name) != flags.name:
		return expires, usage("--name holds characters that cannot be printed.")
	}
	if flags.tenant != "" {
		if err := checkTenantName(flags.tenant); err != nil {
			return expires, err
		}
	}
	for _, s := range flags.scopes {
		if !slices.Contains(access.Scopes(), s) {
			f := usage("There is no scope %q.", s).with("There are %s.", strings.Join(access.Scopes(), ", "))
			if near := config.Nearest(s, access.Scopes()); near != "" {
				f.hint = fmt.Sprintf("Did you mean %s?", near)
			}
			return expires, f
		}
		if s == access.ScopeAdmin && !flags.platform {
			return expires, usage("The scope admin belongs to tokens of the platform.").with("Give --platform.")
		}
	}
	slices.Sort(flags.scopes)
	flags.scopes = slices.Compact(flags.scopes)
	expires, err = r.moment("expires", flags.expires, 1)
	if err == nil && !expires.IsZero() && !expires.After(r.now()) {
		err = usage("--expires %s has passed.", flags.expires)
	}
	return expires, err
}

func (r *runner) makeToken(ctx context.Context, s Store, flags tokenFlags, expires time.Time) error {
	if len(flags.scopes) == 0 {
		flags.scopes = access.DefaultScopes()
		r.say("The token has the scopes %s; --scope gives others.", strings.Join(flags.scopes, " and "))
	}
	tenant, err := r.tenantFor(ctx, s, flags.tenant)
	if err != nil {
		return err
	}
	text, hash := access.NewToken()
	now := r.now().UTC()
	t, err := s.CreateToken(ctx, r.change(), store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, now), Tenant: tenant.ID, Name: flags.name,
		Hash: hash, Scopes: flags.scopes, CreatedAt: now, ExpiresAt: expires,
	})
	if err != nil {
		return err
	}
	if !r.wantsTable() {
		return r.printOne(tokenJSON(t, tenant.Name, text))
	}
	_, err = fmt.Fprintln(r.Out, text)
	return err
}

// tenantFor finds a tenant, or makes it and says so; the platform is the zero
// tenant.
func (r *runner) tenantFor(ctx context.Context, s Store, name string) (posthorn.Tenant, error) {
	if name == "" {
		return posthorn.Tenant{}, nil
	}
	t, err := s.TenantByName(ctx, name)
	if !errors.Is(err, store.ErrNotFound) {
		return t, err
	}
	t, err = s.CreateTenant(ctx, r.change(), name)
	switch {
	case errors.Is(err, store.ErrExists): // made by somebody else just now
		return s.TenantByName(ctx, name)
	case err == nil:
		r.say("Tenant %s was not there; it is created.", name)
	}
	return t, err
}

// tokenJSON is a token as the API shows it; text is empty but for a new one.
func tokenJSON(t store.Token, tenant, text string) jsontext.Value {
	shape := struct {
		ID         string   `json:"id"`
		Tenant     *string  `json:"tenant"`
		Name       string   `json:"name"`
		Scopes     []string `json:"scopes"`
		CreatedAt  *string  `json:"created_at"`
		ExpiresAt  *string  `json:"expires_at"`
		LastUsedAt *string  `json:"last_used_at"`
		Token      string   `json:"token,omitempty"`
	}{ID: t.Ref, Name: t.Name, Scopes: t.Scopes, CreatedAt: milliseconds(t.CreatedAt),
		ExpiresAt: milliseconds(t.ExpiresAt), LastUsedAt: milliseconds(t.LastUsedAt), Token: text}
	if tenant != "" {
		shape.Tenant = &tenant
	}
	return toJSON(shape)
}

func (r *runner) tokenList() *cobra.Command {
	var flags listFlags
	var tenant string
	var platform bool
	c := &cobra.Command{
		Use: "list", Short: "List tokens, newest first, without their text", Args: takes(),
		Annotations: like("GET /tokens"),
		Example:     "  posthorn token list --tenant acme",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			if platform && tenant != "" {
				return usage("--tenant and --platform exclude each other.")
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				whose := int64(-1) // all
				if platform {
					whose = 0
				}
				if tenant != "" {
					t, err := s.TenantByName(ctx, tenant)
					if err != nil {
						return storeFault(err, "tenant", tenant)
					}
					whose = t.ID
				}
				return r.listTokens(ctx, s, whose, flags.limit)
			})
		},
	}
	flags.add(c, false)
	c.Flags().StringVar(&tenant, "tenant", "", "only this `tenant`'s")
	c.Flags().BoolVar(&platform, "platform", false, "only those of the platform")
	completes(c, "tenant", r.knownTenants)
	return c
}

func (r *runner) listTokens(ctx context.Context, s Store, tenant int64, limit int) error {
	names := tenantNames{s, map[int64]string{}}
	out := r.list("ID", "TENANT", "SCOPES", "NAME", "CREATED", "EXPIRES", "LAST USED")
	more := false
	all := pages(func(before int64) ([]store.Token, int64, error) {
		page, err := s.Tokens(ctx, tenant, before, storePage)
		if err != nil || len(page) == 0 {
			return nil, 0, err
		}
		return page, page[len(page)-1].ID, nil
	})
	for t, err := range take(all, limit, &more) {
		if err != nil {
			return err
		}
		owner, err := names.name(ctx, t.Tenant)
		if err != nil {
			return err
		}
		tone := plain
		if !t.ExpiresAt.IsZero() && !t.ExpiresAt.After(r.now()) {
			tone = yellow
		}
		if err := out.add(tokenJSON(t, owner, ""), tone, t.Ref, firstOf(owner, "(platform)"), strings.Join(t.Scopes, ","), t.Name,
			shown(t.CreatedAt), firstOf(shown(t.ExpiresAt), "never"), firstOf(shown(t.LastUsedAt), "never")); err != nil {
			return err
		}
	}
	defer r.tellMore(more, limit)
	return out.close("There are no tokens. \"posthorn token create --help\" shows how to make one.")
}

func (r *runner) tokenDelete() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "delete ID", Aliases: []string{"revoke"}, Short: "Make a token worthless", Args: takes("ID"), ValidArgsFunction: first(r.tokenIDs),
		Annotations: like("DELETE /tokens/{tokenId}"),
		Example:     "  posthorn token delete tok_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if !posthorn.ValidRef(posthorn.TokenPrefix, args[0]) {
				return usage("%q is not a token's id.", printable(args[0])).with("It begins with tok_: \"posthorn token list\" shows it.")
			}
			return r.withStore(cmd, func(ctx context.Context, s Store) error {
				if err := r.confirm(ctx, yes, "Delete token "+args[0]+"? Who uses it is locked out."); err != nil {
					return err
				}
				if err := s.DeleteToken(ctx, r.change(), -1, args[0]); err != nil {
					return storeFault(err, "token", args[0])
				}
				r.say("Token %s is deleted.", args[0])
				return nil
			})
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}
