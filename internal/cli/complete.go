package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// Completion asks the server briefly and stays silent when that does not work.
const completionTimeout = 2 * time.Second

func (r *runner) completeEndpoint(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	api, err := r.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for e, err := range api.Endpoints(ctx) {
		if err != nil {
			break
		}
		ids = append(ids, e.ID+"\t"+printable(e.URL))
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (r *runner) completeType(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return r.typeNames(), cobra.ShellCompDirectiveNoFileComp
}

// completeTypes offers the catalogue for a flag.
func (r *runner) completeTypes(c *cobra.Command, flag string) {
	must(c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return r.typeNames(), cobra.ShellCompDirectiveNoFileComp
	}))
}

func (r *runner) typeNames() []string {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	api, err := r.client()
	if err != nil {
		return nil
	}
	var names []string
	for t, err := range api.EventTypes(ctx) {
		if err != nil {
			break
		}
		names = append(names, t.Name+"\t"+strings.TrimSpace(printable(t.Description)))
	}
	return names
}
