package cli

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

const (
	// completionTimeout is how long completion asks the server; it stays silent when
	// that does not work.
	completionTimeout = 2 * time.Second
	// completionLimit is how many ids of a long list are offered: the newest.
	completionLimit = 50
)

// completer is cobra's form of a completion.
type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// offer asks the server for a list and offers an id and what tells it from others
// for each.
func offer[T any](r *runner, list func(context.Context, *client.Client) iter.Seq2[*T, error], show func(*T) (id, about string)) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
	defer cancel()
	api, err := r.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var all []string
	for item, err := range list(ctx, api) {
		if err != nil {
			break
		}
		id, about := show(item)
		all = append(all, id+"\t"+strings.TrimSpace(printable(about)))
	}
	return all, cobra.ShellCompDirectiveNoFileComp
}

// first offers for the first argument only.
func first(flag completer) completer {
	return func(c *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return flag(c, args, text)
	}
}

func (r *runner) endpointIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.Endpoint, error] {
		return api.Endpoints(ctx)
	},
		func(e *client.Endpoint) (string, string) { return e.ID, e.URL })
}

func (r *runner) eventIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.Published, error] {
		return newest(api.Events(ctx, client.EventFilter{PageSize: completionLimit}))
	}, func(e *client.Published) (string, string) { return e.ID, e.Type + " " + shown(e.AcceptedAt) })
}

func (r *runner) deliveryIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.Delivery, error] {
		return newest(api.Deliveries(ctx, client.DeliveryFilter{PageSize: completionLimit}))
	}, func(d *client.Delivery) (string, string) { return d.ID, d.State + " " + d.EventType + " " + d.Event })
}

func (r *runner) replayIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.Replay, error] {
		return newest(api.Replays(ctx, ""))
	}, func(p *client.Replay) (string, string) { return p.ID, p.State + " " + p.Endpoint })
}

func (r *runner) outboxIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.OutboxEvent, error] {
		return newest(api.Outbox(ctx, "refused"))
	}, func(o *client.OutboxEvent) (string, string) { return o.ID, o.Type + " " + o.Reason })
}

func (r *runner) typeNames(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return offer(r, func(ctx context.Context, api *client.Client) iter.Seq2[*client.EventType, error] {
		return api.EventTypes(ctx)
	},
		func(t *client.EventType) (string, string) { return t.Name, t.Description })
}

// newest cuts a list that is long.
func newest[T any](all iter.Seq2[*T, error]) iter.Seq2[*T, error] {
	more := false
	return take(all, completionLimit, &more)
}

// completes offers values of a flag.
func completes(c *cobra.Command, flag string, with completer) {
	must(c.RegisterFlagCompletionFunc(flag, with))
}

// fromStore offers from the store itself; silently nothing where it is not to be had.
func (r *runner) fromStore(read func(context.Context, Store) ([]string, error)) completer {
	return func(c *cobra.Command, _ []string, _ string) (all []string, _ cobra.ShellCompDirective) {
		_ = r.withStore(c, func(ctx context.Context, s Store) (err error) {
			ctx, cancel := context.WithTimeout(ctx, completionTimeout)
			defer cancel()
			all, err = read(ctx, s)
			return err
		})
		return all, cobra.ShellCompDirectiveNoFileComp
	}
}

// knownTenants offers tenants, tokenIDs tokens with their labels; the newest.
func (r *runner) knownTenants(c *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	return r.fromStore(func(ctx context.Context, s Store) (all []string, err error) {
		page, err := s.Tenants(ctx, 0, completionLimit)
		for _, t := range page {
			all = append(all, t.Name)
		}
		return all, err
	})(c, args, text)
}

func (r *runner) tokenIDs(c *cobra.Command, args []string, text string) ([]string, cobra.ShellCompDirective) {
	return r.fromStore(func(ctx context.Context, s Store) (all []string, err error) {
		const ofAll = -1
		page, err := s.Tokens(ctx, ofAll, 0, completionLimit)
		for _, t := range page {
			all = append(all, t.Ref+"\t"+strings.TrimSpace(printable(t.Name+" "+strings.Join(t.Scopes, ","))))
		}
		return all, err
	})(c, args, text)
}
