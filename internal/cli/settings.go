package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) settingsCommand() *cobra.Command {
	return r.group("settings", "setting", "Change how an endpoint is delivered to",
		`  posthorn endpoint settings get wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW
  posthorn endpoint settings set wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --rate 50 --filter 'data.country == "DE"'`,
		r.settingsGet(), r.settingsSet(), r.settingsTestFilter())
}

func (r *runner) settingsGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Print an endpoint's settings", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("GET /endpoints/{webhookId}/settings"),
		Example:     "  posthorn endpoint settings get wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			s, err := api.EndpointSettings(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return r.printSettings(s)
		},
	}
}

func (r *runner) printSettings(s *client.Settings) error {
	if !r.wantsTable() {
		return r.printOne(s.JSON())
	}
	or := func(set bool, text, byDefault string) string {
		if set {
			return text
		}
		return byDefault
	}
	var waits []string
	for _, seconds := range s.RetrySchedule {
		waits = append(waits, (time.Duration(seconds) * time.Second).String())
	}
	return r.fields(
		"headers", or(len(s.Headers) > 0, strings.Join(slices.Sorted(maps.Keys(s.Headers)), ", ")+" (values are not shown)", "none"),
		"rate", or(s.RatePerSecond > 0, strconv.FormatFloat(s.RatePerSecond, 'g', -1, 64)+" a second", "no bound"),
		"in flight", or(s.MaxInFlight > 0, strconv.Itoa(s.MaxInFlight), "32 (default)"),
		"timeout", or(s.TimeoutSeconds > 0, fmt.Sprint(s.TimeoutSeconds, "s"), "15s (default)"),
		"retries after", or(len(waits) > 0, strings.Join(waits, ", "), "the service's schedule (default)"),
		"filter", or(s.Filter != "", s.Filter, "none"),
		"ordered", or(s.Ordered, "yes", "no"))
}

// settingsFlags are what "settings set" is told.
type settingsFlags struct {
	headers, headerFiles, headerEnvs, removed []string
	rate                                      float64
	inFlight                                  int
	timeout                                   time.Duration
	waits                                     []time.Duration
	filter                                    string
	ordered                                   bool
	reset                                     []string
}

func (r *runner) settingsSet() *cobra.Command {
	var set settingsFlags
	c := &cobra.Command{
		Use: "set ID", Short: "Change what is named and leave the rest",
		Annotations: calls("PATCH /endpoints/{webhookId}/settings"),
		Long:        "Values of headers are often secrets: --header-file and --header-env keep them out of the shell's history and the list of processes.",
		Args:        takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Example: `  posthorn endpoint settings set wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --header-file Authorization=./bearer.txt --rate 50
  posthorn endpoint settings set wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --retry-schedule 5s,1m,1h --filter @filter.cel
  posthorn endpoint settings set wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --reset rate_per_second,filter --remove-header X-Key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			ch, err := r.settingsChange(cmd, &set)
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			s, err := api.UpdateSettings(cmd.Context(), args[0], ch)
			if err != nil {
				return err
			}
			return r.printSettings(s)
		},
	}
	f := c.Flags()
	f.StringArrayVar(&set.headers, "header", nil, "`'Name: value'` to send with each request (repeatable; better: --header-file)")
	f.StringArrayVar(&set.headerFiles, "header-file", nil, "`Name=FILE`: the value is what the file holds, - for standard input (repeatable)")
	f.StringArrayVar(&set.headerEnvs, "header-env", nil, "`Name=VARIABLE`: the value is that of the environment variable (repeatable)")
	f.StringSliceVar(&set.removed, "remove-header", nil, "`name` of a header to send no more (repeatable)")
	f.Float64Var(&set.rate, "rate", 0, "attempts started in a second, 0.1 to 1000")
	f.IntVar(&set.inFlight, "max-in-flight", 0, "attempts at a time, 1 to 256")
	f.DurationVar(&set.timeout, "timeout", 0, "how long an attempt may take, 1s to 30s")
	f.DurationSliceVar(&set.waits, "retry-schedule", nil, "waits between failed attempts, such as 5s,1m,1h")
	f.StringVar(&set.filter, "filter", "", "CEL `expression` over type and data, or @FILE")
	f.BoolVar(&set.ordered, "ordered", false, "deliver one at a time, in publish order")
	f.StringSliceVar(&set.reset, "reset", nil, "`settings` whose default is put back, by their names in the API (repeatable)")
	must(c.RegisterFlagCompletionFunc("reset", cobra.FixedCompletions(settingNames, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

var settingNames = []string{"headers", "rate_per_second", "max_in_flight", "timeout_seconds", "retry_schedule", "filter", "ordered"}

func (r *runner) settingsChange(cmd *cobra.Command, set *settingsFlags) (ch client.SettingsChange, err error) {
	changed := cmd.Flags().Changed
	if ch.Headers, err = r.headerValues(set); err != nil {
		return ch, err
	}
	if changed("rate") {
		ch.RatePerSecond = &set.rate
	}
	if changed("max-in-flight") {
		ch.MaxInFlight = &set.inFlight
	}
	if changed("timeout") {
		seconds, err := wholeSeconds("timeout", set.timeout)
		if err != nil {
			return ch, err
		}
		ch.TimeoutSeconds = &seconds
	}
	if changed("retry-schedule") {
		ch.RetrySchedule = []int{}
		for _, wait := range set.waits {
			seconds, err := wholeSeconds("retry-schedule", wait)
			if err != nil {
				return ch, err
			}
			ch.RetrySchedule = append(ch.RetrySchedule, seconds)
		}
	}
	if changed("filter") {
		expression, err := r.expression(set.filter)
		if err != nil {
			return ch, err
		}
		ch.Filter = &expression
	}
	if changed("ordered") {
		ch.Ordered = &set.ordered
	}
	for _, name := range set.reset {
		if !slices.Contains(settingNames, name) {
			return ch, usage("--reset %s is no setting.", name).with("They are %s.", strings.Join(settingNames, ", "))
		}
		if name == "headers" && ch.Headers != nil {
			return ch, usage("--reset headers takes all away; give the new ones in a second command.")
		}
	}
	ch.Reset = set.reset
	if cmd.Flags().NFlag() == 0 || ch.Headers == nil && ch.RatePerSecond == nil && ch.MaxInFlight == nil && ch.TimeoutSeconds == nil &&
		ch.RetrySchedule == nil && ch.Filter == nil && ch.Ordered == nil && ch.Reset == nil {
		return ch, usage("There is nothing to change.").with("\"posthorn endpoint settings set --help\" lists the settings.")
	}
	return ch, nil
}

func wholeSeconds(flag string, d time.Duration) (int, error) {
	if d%time.Second != 0 {
		return 0, usage("--%s %v is not whole seconds.", flag, d)
	}
	return int(d / time.Second), nil
}

// headerValues gathers the headers of all flags; nil for none.
func (r *runner) headerValues(set *settingsFlags) (map[string]*string, error) {
	headers := map[string]*string{}
	put := func(name, value string) {
		value = strings.Trim(strings.TrimRight(value, "\r\n"), " \t")
		headers[strings.TrimSpace(name)] = &value
	}
	for _, text := range set.headers {
		name, value, ok := strings.Cut(text, ":")
		if !ok {
			return nil, usage("A --header has no colon.").with("Write it as 'X-Key: value'.")
		}
		if isTerminal(r.Err) {
			r.say("warning: --header leaves the value in your shell's history; use --header-file or --header-env")
		}
		put(name, value)
	}
	for _, text := range set.headerFiles {
		name, file, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usage("--header-file %q has no =.", text).with("Write it as X-Key=FILE.")
		}
		b, err := r.readSource(file, 64<<10)
		if err != nil {
			return nil, err
		}
		put(name, string(b))
	}
	for _, text := range set.headerEnvs {
		name, variable, ok := strings.Cut(text, "=")
		if !ok {
			return nil, usage("--header-env %q has no =.", text).with("Write it as X-Key=VARIABLE.")
		}
		value := r.getenv(variable)
		if value == "" {
			return nil, usage("The environment variable %s of --header-env is not set.", variable)
		}
		put(name, value)
	}
	for _, name := range set.removed {
		headers[name] = nil
	}
	if len(headers) == 0 {
		return nil, nil
	}
	return headers, nil
}

// expression is a filter as it was given, or what the file after @ holds.
func (r *runner) expression(text string) (string, error) {
	name, isFile := strings.CutPrefix(text, "@")
	if !isFile {
		return text, nil
	}
	b, err := r.readSource(name, 64<<10)
	return strings.TrimSpace(string(b)), err
}

func (r *runner) settingsTestFilter() *cobra.Command {
	return &cobra.Command{
		Use: "test-filter ID EXPRESSION", Short: "Show which recent events a filter would let pass",
		Annotations: calls("POST /endpoints/{webhookId}/filter/test"),
		Long:        "Nothing is sent and nothing changes. The expression may be @FILE.",
		Args:        takes("ID", "EXPRESSION"), ValidArgsFunction: first(r.endpointIDs),
		Example: `  posthorn endpoint settings test-filter wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW 'data.country == "DE"'`,
		RunE: func(cmd *cobra.Command, args []string) error {
			expression, err := r.expression(args[1])
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			t, err := api.TestFilter(cmd.Context(), args[0], expression)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(t.JSON())
			}
			return r.printFilterTest(t)
		},
	}
}

func (r *runner) printFilterTest(t *client.FilterTested) error {
	if len(t.Events) == 0 {
		r.say("There are no recent events of the endpoint's types.")
		return nil
	}
	var rows []row
	for _, e := range t.Events {
		says, tone := "no", plain
		switch {
		case e.Matches == nil:
			says, tone = printable("fails: "+e.Error), yellow
		case *e.Matches:
			says, tone = "yes", green
		}
		rows = append(rows, row{[]string{e.ID, e.Type, says}, tone})
	}
	if err := r.table([]string{"EVENT", "TYPE", "MATCHES"}, rows); err != nil {
		return err
	}
	r.say("%d of %d match; the filter fails on %d, which are delivered too.", t.Matching, len(t.Events), t.Failed)
	return nil
}
