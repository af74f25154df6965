package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/terminal"
)

func (r *runner) eventCommand() *cobra.Command {
	return r.remoteFlags(r.group("event", "events", "Publish events and look at them",
		`  posthorn event send cases.updated --data '{"case":{"id":590}}'
  posthorn event list --type 'cases.*' --since 2h`,
		r.eventSend(), r.eventList(), r.eventGet(), r.eventTail(), r.eventResend(), r.eventCancel(), r.eventErase(), r.eventCurl()))
}

// maxData is a little more than the service takes, so that the service says no.
const maxData = 1 << 20

// sendFlags are what "event send" and "trigger" have in common.
type sendFlags struct {
	data, id, timestamp, deliverAt string
	wait                           bool
	timeout                        string
	test                           bool // marked as one; no flag, triggers are
}

func (s *sendFlags) add(c *cobra.Command, data string) {
	f := c.Flags()
	f.StringVar(&s.data, "data", data, "the event's data: `JSON`, @FILE, or - for standard input")
	f.StringVar(&s.id, "id", "", "the event's `id`: the same again delivers nothing new")
	f.StringVar(&s.timestamp, "timestamp", "", "`when` it happened: 2026-04-29T09:10:00Z, or 2h for two hours ago (default now)")
	f.StringVar(&s.deliverAt, "deliver-at", "", "`when` to deliver: 2026-04-29T09:10:00Z, or 2h for in two hours (default at once)")
	f.BoolVar(&s.wait, "wait", false, "wait for the first attempt of each delivery; exit 6 if one fails")
	f.StringVar(&s.timeout, "timeout", "30s", "how `long` --wait waits")
}

func (r *runner) eventSend() *cobra.Command {
	var flags sendFlags
	c := &cobra.Command{
		Use: "send TYPE", Short: "Publish an event", Args: takes("TYPE"), ValidArgsFunction: first(r.typeNames),
		Annotations: calls("POST /events", "GET /events/{eventId}"),
		Example: `  posthorn event send cases.updated --data '{"case":{"id":590}}'
  posthorn event send cases.updated --data @case.json --wait`,
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := r.readData(flags.data)
			if err != nil {
				return err
			}
			return r.send(cmd.Context(), args[0], data, flags)
		},
	}
	flags.add(c, "{}")
	return c
}

// readData reads what --data names.
func (r *runner) readData(text string) (jsontext.Value, error) {
	var err error
	data, name := []byte(text), "--data"
	if file, ok := strings.CutPrefix(text, "@"); ok || text == "-" {
		name = file
		if !ok {
			file, name = "-", "Standard input"
			if r.remote.tokenFile == "-" {
				return nil, usage("Standard input can be read once only: give the token or the data by a file.")
			}
		}
		if data, err = r.readSource(file, maxData); err != nil {
			return nil, err
		}
	}
	v := jsontext.Value(strings.TrimSpace(string(data)))
	if err := validObject(v); err != nil {
		return nil, usage("%s is not a JSON object: %v.", name, err).with("Write it as '{\"case\":{\"id\":590}}', @FILE, or - for standard input.")
	}
	return v, nil
}

func validObject(v jsontext.Value) error {
	d := jsontext.NewDecoder(strings.NewReader(string(v)))
	value, err := d.ReadValue()
	if err != nil {
		return fmt.Errorf("%s", strings.TrimPrefix(err.Error(), "jsontext: "))
	}
	if value.Kind() != '{' {
		return fmt.Errorf("it begins with %.1s", value)
	}
	if int(d.InputOffset()) != len(v) {
		return fmt.Errorf("something follows at byte %d", d.InputOffset())
	}
	return nil
}

// send publishes and, if asked to, waits for the deliveries.
func (r *runner) send(ctx context.Context, eventType string, data jsontext.Value, flags sendFlags) error {
	e := client.Event{Type: eventType, ID: flags.id, Data: data, Test: flags.test}
	var err error
	if e.Timestamp, err = r.moment("timestamp", flags.timestamp, -1); err != nil {
		return err
	}
	if e.DeliverAt, err = r.moment("deliver-at", flags.deliverAt, 1); err != nil {
		return err
	}
	timeout, err := config.ParseDuration(flags.timeout)
	if err != nil {
		return usage("--timeout: %v.", err)
	}
	api, err := r.client()
	if err != nil {
		return err
	}
	accepted, err := api.Send(ctx, e)
	if err != nil {
		return err
	}
	if flags.wait {
		return r.await(ctx, api, accepted, timeout)
	}
	if !r.wantsTable() {
		return r.printOne(accepted.JSON())
	}
	r.say("Accepted %s, to be delivered to %s.", accepted.Type, count(accepted.Deliveries, "endpoint"))
	_, err = fmt.Fprintln(r.Out, printable(accepted.ID))
	return err
}

// pollEvery is the pause between two looks at an event that is waited for.
const pollEvery = 100 * time.Millisecond

// await prints each delivery of the event as soon as its first attempt is made,
// and fails if one was not acknowledged.
func (r *runner) await(ctx context.Context, api *client.Client, a *client.Accepted, timeout time.Duration) error {
	r.say("Accepted %s %s, to be delivered to %s.", a.Type, a.ID, count(a.Deliveries, "endpoint"))
	if a.Deliveries == 0 {
		return &fault{exit: ExitTestFailed, message: fmt.Sprintf("No endpoint has subscribed to %s.", a.Type)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errWaited)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	told := map[string]bool{}
	failed := 0
	for {
		e, err := api.Event(ctx, a.ID)
		if err != nil && context.Cause(ctx) != errWaited {
			return err
		}
		if err == nil {
			for i := range e.DeliveryLog {
				d := &e.DeliveryLog[i]
				if told[d.ID] || !settled(d) {
					continue
				}
				told[d.ID] = true
				r.printOutcome(d)
				if d.State != "succeeded" {
					failed++
				}
			}
			if len(told) >= a.Deliveries || len(told) >= len(e.DeliveryLog) && len(e.DeliveryLog) > 0 {
				return r.awaited(e, failed)
			}
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) == errWaited {
				return (&fault{exit: ExitTestFailed, message: fmt.Sprintf("After %s, %s had not been attempted.", config.FormatDuration(timeout), count(a.Deliveries-len(told), "delivery"))}).
					with("\"posthorn event get %s\" shows how it goes on.", a.ID)
			}
			return ctx.Err()
		case <-tick.C:
		}
	}
}

var errWaited = fmt.Errorf("waited long enough")

// awaited ends a wait whose deliveries are all told of.
func (r *runner) awaited(e *client.Published, failed int) error {
	var err error
	if r.wantsTable() {
		_, err = fmt.Fprintln(r.Out, printable(e.ID))
	} else {
		err = r.printOne(e.JSON())
	}
	if err == nil && failed > 0 {
		err = (&fault{exit: ExitTestFailed, message: fmt.Sprintf("%s of %d did not succeed.", count(failed, "delivery"), len(e.DeliveryLog))}).
			with("\"posthorn event get %s\" shows why, and when it is tried again.", e.ID)
	}
	return err
}

// settled reports whether a delivery has an outcome to tell of.
func settled(d *client.Delivery) bool {
	return d.State != "pending" || d.AttemptsMade > 0
}

// printOutcome tells in a line how a delivery fared.
func (r *runner) printOutcome(d *client.Delivery) {
	mark, tone := "✗", red
	switch d.State {
	case "succeeded":
		mark, tone = "✓", green
	case "held":
		mark, tone = "-", yellow
	}
	why := d.Reason
	if n := len(d.Attempts); n > 0 {
		why = d.Attempts[n-1].Explanation
	}
	line := fmt.Sprintf("%s %s %s %s", mark, d.Endpoint, d.State, why)
	if !next(d).IsZero() {
		line += " Next attempt " + r.ahead(next(d)) + "."
	}
	r.say("%s", r.paint(r.Err, tone, printable(strings.TrimSpace(line))))
}

func (r *runner) eventList() *cobra.Command {
	var flags listFlags
	var filter client.EventFilter
	c := &cobra.Command{
		Use: "list", Short: "List events, newest first", Args: takes(),
		Annotations: calls("GET /events"),
		Example:     "  posthorn event list --type 'cases.*' --since 2h",
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
			out := r.list("ID", "TYPE", "ACCEPTED", "DELIVERIES")
			for e, err := range take(api.Events(cmd.Context(), filter), flags.limit, &more) {
				if err != nil {
					return err
				}
				if err := out.add(e.JSON(), plain, e.ID, e.Type, shown(e.AcceptedAt), fmt.Sprint(e.Deliveries)); err != nil {
					return err
				}
			}
			defer r.tellMore(more, flags.limit)
			return out.close("There are no such events.")
		},
	}
	flags.add(c, true)
	c.Flags().StringVar(&filter.Type, "type", "", "event `type` or pattern")
	c.Flags().StringVar(&filter.Source, "source", "", "`source` of a CloudEvent")
	c.Flags().StringVar(&filter.Subject, "subject", "", "`subject` of a CloudEvent")
	c.Flags().StringVar(&filter.SourceID, "source-id", "", "`id` that a CloudEvent came with")
	completes(c, "type", r.typeNames)
	return c
}

// pageSize asks for one more than is wanted, to see whether there are more.
func pageSize(limit int) int {
	if limit <= 0 {
		return 0
	}
	return min(limit+1, 250)
}

func (r *runner) eventGet() *cobra.Command {
	var raw bool
	c := &cobra.Command{
		Use: "get ID", Short: "Print an event with its data and deliveries", Args: takes("ID"), ValidArgsFunction: first(r.eventIDs),
		Annotations: calls("GET /events/{eventId}"),
		Example: `  posthorn event get evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B
  posthorn event get evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --raw > data.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			e, err := api.Event(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case raw && e.Data == nil:
				return &fault{exit: ExitNotFound, message: "The event's data was erased."}
			case raw && isTerminal(r.Out):
				_, err = r.Out.Write(terminal.JSON(e.Data))
				return err
			case raw:
				_, err = r.Out.Write(e.Data)
				return err
			case !r.wantsTable():
				return r.printOne(e.JSON())
			}
			return r.printEvent(e)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "print the data only, byte for byte as it was published")
	return c
}

func (r *runner) eventErase() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "erase ID", Short: "Erase the payload of an event for good", Args: takes("ID"), ValidArgsFunction: first(r.eventIDs),
		Annotations: calls("DELETE /events/{eventId}/payload"),
		Example:     "  posthorn event erase evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --yes",
		Long: "What waits of the event is canceled, and it cannot be sent again. The event and its\n" +
			"deliveries stay in the log, without what receivers answered. Backups still hold it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			if err := r.confirm(cmd.Context(), yes, fmt.Sprintf("Erase the payload of %s for good?", args[0])); err != nil {
				return err
			}
			done, err := api.ErasePayload(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !done {
				r.say("The payload of %s is being erased: nothing shows or sends it any more. %s", args[0], erasingText)
				return nil
			}
			r.say("The payload of %s is erased.", args[0])
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

const erasingText = "Bytes of it are in the store's log until whoever reads the store's file, such as a backup, has ended."

func erasedText(e *client.Published) string {
	if e.PayloadState == "erasing" {
		return "The data is being erased. " + erasingText
	}
	return "The data was erased."
}

func (r *runner) printEvent(e *client.Published) error {
	if err := r.fields("id", e.ID, "type", e.Type, "happened", shown(e.Timestamp), "accepted", shown(e.AcceptedAt),
		"deliver at", r.ahead(e.DeliverAt), "source", e.Source, "source id", e.SourceID, "subject", e.Subject); err != nil {
		return err
	}
	fmt.Fprintln(r.Out)
	if e.Data == nil {
		fmt.Fprintln(r.Out, erasedText(e))
	} else {
		data := e.Data.Clone()
		if err := data.Indent(jsontext.WithIndent("  ")); err != nil {
			return err
		}
		for line := range strings.SplitSeq(string(data), "\n") {
			fmt.Fprintln(r.Out, printable(line))
		}
	}
	fmt.Fprintln(r.Out)
	if len(e.DeliveryLog) == 0 {
		_, err := fmt.Fprintln(r.Out, "No endpoint had subscribed to it.")
		return err
	}
	rows := make([]row, len(e.DeliveryLog))
	for i := range e.DeliveryLog {
		d := &e.DeliveryLog[i]
		rows[i] = row{[]string{printable(d.ID), printable(d.Endpoint), printable(d.State), fmt.Sprint(d.AttemptsMade), printable(lastOutcome(d)), orDash(r.ahead(next(d)))}, stateTone(d.State)}
	}
	return r.table([]string{"DELIVERY", "ENDPOINT", "STATE", "ATTEMPTS", "LAST", "NEXT"}, rows)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// count writes "1 endpoint", "2 deliveries".
func count(n int, noun string) string {
	if n != 1 {
		if strings.HasSuffix(noun, "y") {
			noun = strings.TrimSuffix(noun, "y") + "ie"
		}
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// ahead writes a time and how far it is away; empty for the zero one.
func (r *runner) ahead(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	d := t.Sub(r.now()).Round(time.Second)
	if d <= 0 {
		return shown(t) + " (now)"
	}
	return shown(t) + " (in " + config.FormatDuration(d) + ")"
}
