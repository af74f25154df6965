package cli

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
)

func (r *runner) contextCommand() *cobra.Command {
	return r.group("context", "contexts", "Save servers and their tokens under a name",
		`  posthorn context add prod --server https://hooks.example.com < token
  posthorn context use prod
  posthorn endpoint list --context staging`,
		r.contextAdd(), r.contextUse(), r.contextList(), r.contextRemove())
}

// noContext names the one that was meant, or all.
func noContext(c *contexts, name string) *fault {
	f := &fault{exit: ExitNotFound, message: fmt.Sprintf("There is no context %q.", printable(name)),
		hint: "\"posthorn context add\" saves one."}
	if len(c.All) > 0 {
		f.hint = "There are " + strings.Join(c.names(), ", ") + "."
		if near := config.Nearest(name, c.names()); near != "" {
			f.hint = fmt.Sprintf("Did you mean %s?", near)
		}
	}
	return f
}

func (r *runner) contextAdd() *cobra.Command {
	var flags struct{ server, tokenFile, tenant string }
	c := &cobra.Command{
		Use: "add NAME --server URL", Short: "Save a server and the token that is on standard input", Args: takes("NAME"),
		Example: `  posthorn token create --tenant acme | posthorn context add local --server http://127.0.0.1:8420
  posthorn context add prod --server https://hooks.example.com --token-file token`,
		Long: "The token comes from standard input, from --token-file, or from POSTHORN_TOKEN, and is\n" +
			"never shown again. It is kept in contexts.json in your configuration folder\n" +
			"($XDG_CONFIG_HOME/posthorn, else ~/.config/posthorn), which only you can read. The first\n" +
			"context becomes the current one. A name that is there is replaced.",
		RunE: func(cmd *cobra.Command, args []string) error {
			s := serverContext{Name: args[0], Server: strings.TrimRight(flags.server, "/"), Tenant: flags.tenant}
			if err := s.check(); err != nil {
				return err
			}
			all, err := r.readContexts()
			if err != nil {
				return err
			}
			if s.Token, err = r.contextToken(flags.tokenFile); err != nil {
				return err
			}
			if _, err := client.New(client.Config{Server: s.Server, Token: s.Token, Tenant: s.Tenant}); err != nil {
				return &fault{exit: ExitUsage, message: sentence(err.Error()), err: err}
			}
			verb := "saved"
			if old := all.find(s.Name); old != nil {
				*old, verb = s, "replaced"
			} else {
				all.All = append(all.All, s)
			}
			if len(all.All) == 1 {
				all.Current = s.Name
			}
			if err := all.save(); err != nil {
				return err
			}
			r.say("Context %s is %s in %s.", s.Name, verb, all.path)
			if all.Current != s.Name {
				r.say("The current one is %s still: \"posthorn context use %s\" changes that.", firstOf(all.Current, "none"), s.Name)
			}
			if inTheClear(s.Server) {
				r.say("warning: tokens go to %s unencrypted; use https", s.Server)
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&flags.server, "server", "", "`URL` of the server")
	f.StringVar(&flags.tokenFile, "token-file", "", "`file` that holds the access token (default: POSTHORN_TOKEN, else standard input)")
	f.StringVar(&flags.tenant, "tenant", "", "`tenant` that a platform token speaks for")
	return c
}

func (s *serverContext) check() error {
	if !contextName.MatchString(s.Name) {
		return usage("%q is not a name for a context.", printable(s.Name)).with("It has 1 to 64 letters, digits, '.', '_' and '-', and begins with a letter or digit.")
	}
	if s.Server == "" {
		return usage("Which server is it?").with("Give --server https://HOST.")
	}
	if u, err := url.Parse(s.Server); err != nil || u.Host == "" || u.User != nil {
		return usage("--server is not a URL such as https://hooks.example.com.")
	}
	if s.Tenant != "" && !posthorn.ValidTenantName(s.Tenant) {
		return checkTenantName(s.Tenant)
	}
	return nil
}

// contextToken finds the token to save. A flag would leave it in the shell's
// history, so there is none.
func (r *runner) contextToken(file string) (string, error) {
	token := r.getenv("POSTHORN_TOKEN")
	if file != "" || token == "" {
		file = firstOf(file, "-")
		if file == "-" && isTerminal(r.In) {
			r.say("Paste the token and end with Ctrl-D:")
		}
		b, err := r.readSource(file, 16<<10)
		if err != nil {
			return "", err
		}
		token = string(b)
	}
	if token = strings.TrimSpace(token); token == "" {
		return "", (&fault{exit: ExitUsage, message: "There is no token to save."}).
			with("Give it on standard input, by --token-file or in POSTHORN_TOKEN.")
	}
	return token, nil
}

func (r *runner) contextUse() *cobra.Command {
	return &cobra.Command{
		Use: "use NAME", Short: "Make a context the current one", Args: takes("NAME"), ValidArgsFunction: r.completeContext,
		Example: "  posthorn context use prod",
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := r.readContexts()
			if err != nil {
				return err
			}
			s := all.find(args[0])
			if s == nil {
				return noContext(all, args[0])
			}
			all.Current = s.Name
			if err := all.save(); err != nil {
				return err
			}
			r.say("Commands call %s from now on, unless --server, --token and their variables say otherwise.", s.Server)
			return nil
		},
	}
}

func (r *runner) contextList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the saved contexts, without their tokens", Args: takes(),
		Example: "  posthorn context list",
		RunE: func(*cobra.Command, []string) error {
			all, err := r.readContexts()
			if err != nil {
				return err
			}
			out := r.list("NAME", "CURRENT", "SERVER", "TENANT")
			for _, s := range all.All {
				current, mark := s.Name == all.Current, ""
				if current {
					mark = "*"
				}
				item := toJSON(struct {
					Name    string `json:"name"`
					Current bool   `json:"current"`
					Server  string `json:"server"`
					Tenant  string `json:"tenant"`
				}{s.Name, current, s.Server, s.Tenant})
				if err := out.add(item, plain, s.Name, mark, s.Server, s.Tenant); err != nil {
					return err
				}
			}
			return out.close("There are no contexts. \"posthorn context add --help\" shows how to save one.")
		},
	}
}

func (r *runner) contextRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a context and its token", Args: takes("NAME"), ValidArgsFunction: r.completeContext,
		Example: "  posthorn context remove staging",
		Long:    "The token stays good: \"posthorn token delete\" makes it worthless.",
		RunE: func(_ *cobra.Command, args []string) error {
			all, err := r.readContexts()
			if err != nil {
				return err
			}
			if all.find(args[0]) == nil {
				return noContext(all, args[0])
			}
			kept := all.All[:0]
			for _, s := range all.All {
				if s.Name != args[0] {
					kept = append(kept, s)
				}
			}
			all.All = kept
			if all.Current == args[0] {
				all.Current = ""
				r.say("It was the current one; now there is none.")
			}
			if err := all.save(); err != nil {
				return err
			}
			r.say("Context %s is removed. Its token stays good: \"posthorn token delete\" makes it worthless.", args[0])
			return nil
		},
	}
}

func (r *runner) completeContext(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	all, err := r.readContexts()
	if err != nil || len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return all.names(), cobra.ShellCompDirectiveNoFileComp
}
