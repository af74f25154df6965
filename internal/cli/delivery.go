package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
)

func (r *runner) deliveryCommand() *cobra.Command {
	return r.remoteFlags(r.group("delivery", "deliveries", "See what was delivered, and why not",
		`  posthorn delivery list --state failed --since 1d
  posthorn delivery get dlv_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B`,
		r.deliveryList(), r.deliveryGet(), r.deliveryRetry(), r.deliveryCancel()))
}

func (r *runner) deliveryList() *cobra.Command {
	var flags listFlags
	var filter client.DeliveryFilter
	c := &cobra.Command{
		Use: "list", Short: "List deliveries, newest first", Args: takes(),
		Annotations: calls("GET /deliveries"),
		Example:     "  posthorn delivery list --state failed --since 1d",
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if filter.State != "" && !slices.Contains(posthorn.ShownStates(), posthorn.ShownState(filter.State)) {
				return usage("--state %s is none of %s.", filter.State, strings.Join(stateNames(), ", "))
			}
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
			out := r.list("ID", "STATE", "TYPE", "EVENT", "ENDPOINT", "ATTEMPTS", "LAST", "NEXT")
			for d, err := range take(api.Deliveries(cmd.Context(), filter), flags.limit, &more) {
				if err != nil {
					return err
				}
				if err := out.add(d.JSON(), stateTone(d.State), d.ID, d.State, d.EventType, d.Event, d.Endpoint,
					fmt.Sprint(d.AttemptsMade), lastOutcome(d), shown(next(d))); err != nil {
					return err
				}
			}
			defer r.tellMore(more, flags.limit)
			return out.close("There are no such deliveries.")
		},
	}
	flags.add(c, true)
	f := c.Flags()
	f.StringVar(&filter.State, "state", "", "`state`: "+strings.Join(stateNames(), ", "))
	f.StringVar(&filter.Endpoint, "endpoint", "", "endpoint's `id`")
	f.StringVar(&filter.Event, "event", "", "event's `id`")
	f.StringVar(&filter.Type, "type", "", "event `type` or pattern")
	must(c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp)))
	completes(c, "endpoint", r.endpointIDs)
	completes(c, "event", r.eventIDs)
	completes(c, "type", r.typeNames)
	return c
}

func stateNames() []string {
	var names []string
	for _, s := range posthorn.ShownStates() {
		names = append(names, string(s))
	}
	return names
}

func stateTone(state string) color {
	switch state {
	case "failed", "expired":
		return red
	case "held", "canceled":
		return yellow
	}
	return plain
}

// next is when the next attempt is made; zero for a held delivery, which has a
// time but waits for its endpoint.
func next(d *client.Delivery) time.Time {
	if d.State != "pending" {
		return time.Time{}
	}
	return d.NextAttemptAt
}

// lastOutcome is the last attempt's status or class.
func lastOutcome(d *client.Delivery) string {
	if len(d.Attempts) == 0 {
		return orDash(d.Reason)
	}
	return outcome(&d.Attempts[len(d.Attempts)-1])
}

func outcome(a *client.Attempt) string {
	if a.Status != 0 {
		return fmt.Sprint(a.Status)
	}
	return a.Class
}

func (r *runner) deliveryGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Print a delivery with each attempt and why it ended so", Args: takes("ID"), ValidArgsFunction: first(r.deliveryIDs),
		Annotations: calls("GET /deliveries/{deliveryId}"),
		Example:     "  posthorn delivery get dlv_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			d, err := api.Delivery(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(d.JSON())
			}
			return r.printDelivery(d)
		},
	}
}

func (r *runner) printDelivery(d *client.Delivery) error {
	if err := r.fields("id", d.ID, "state", d.State, "reason", d.Reason, "note", d.Note, "event", d.Event, "type", d.EventType,
		"endpoint", d.Endpoint, "created", shown(d.CreatedAt), "attempts", fmt.Sprint(d.AttemptsMade),
		"next attempt", r.ahead(next(d))); err != nil {
		return err
	}
	before := 0
	for i := range d.Attempts {
		a := &d.Attempts[i]
		if missing := a.Number - before - 1; i > 0 && missing > 0 {
			fmt.Fprintf(r.Out, "\n(%s in between are not kept)\n", count(missing, "attempt"))
		}
		before = a.Number
		r.printAttempt(a)
	}
	return nil
}

func (r *runner) printAttempt(a *client.Attempt) {
	tone := red
	if a.Class == "ok" {
		tone = green
	}
	head := fmt.Sprintf("#%d  %s  %s  %s", a.Number, a.At.UTC().Format("2006-01-02T15:04:05.000Z"), outcome(a), took(a.DurationMS))
	if a.Manual {
		head += "  by hand"
	}
	fmt.Fprintf(r.Out, "\n%s\n    %s\n", r.paint(r.Out, tone, printable(head)), printable(a.Explanation))
	if phases := phases(a.Timings); phases != "" {
		fmt.Fprintf(r.Out, "    %s\n", phases)
	}
	names := make([]string, 0, len(a.ResponseHeaders))
	for name := range a.ResponseHeaders {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(r.Out, "    %s: %s\n", printable(name), printable(a.ResponseHeaders[name]))
	}
	if a.ResponseBody != "" {
		for line := range strings.SplitSeq(strings.TrimRight(a.ResponseBody, "\r\n"), "\n") {
			fmt.Fprintf(r.Out, "    | %s\n", printable(strings.TrimRight(line, "\r")))
		}
	}
	if a.ResponseBodyNote != "" {
		fmt.Fprintf(r.Out, "    (the body: %s)\n", printable(a.ResponseBodyNote))
	}
}

// phases names the phases that took place.
func phases(t client.Timings) string {
	var parts []string
	for _, p := range []struct {
		name string
		ms   float64
	}{{"DNS", t.DNSMS}, {"connect", t.ConnectMS}, {"TLS", t.TLSMS}, {"first byte", t.FirstByteMS}} {
		if p.ms > 0 {
			parts = append(parts, p.name+" "+took(p.ms))
		}
	}
	return strings.Join(parts, ", ")
}

// took writes milliseconds as precisely as anybody needs.
func took(ms float64) string {
	if ms < 10 {
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.0f ms", ms)
}
