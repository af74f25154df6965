package cli

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func (r *runner) eventTypeCommand() *cobra.Command {
	return r.remoteFlags(r.group("event-type", "event-types", "Browse the catalogue of event types",
		`  posthorn event-type list
  posthorn event-type get cases.updated`,
		r.eventTypeList(), r.eventTypeGet()))
}

func (r *runner) eventTypeList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the event types", Args: takes(),
		Annotations: calls("GET /event-types"),
		Example:     "  posthorn event-type list",
		RunE: func(cmd *cobra.Command, _ []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			out := r.list("NAME", "DESCRIPTION")
			for t, err := range api.EventTypes(cmd.Context()) {
				if err != nil {
					return err
				}
				if err := out.add(t.JSON(), plain, t.Name, t.Description); err != nil {
					return err
				}
			}
			return out.close("The catalogue is empty.")
		},
	}
}

func (r *runner) eventTypeGet() *cobra.Command {
	var example bool
	c := &cobra.Command{
		Use: "get NAME", Short: "Print an event type with its schema and an example", Args: takes("NAME"), ValidArgsFunction: first(r.typeNames),
		Annotations: calls("GET /event-types/{type}"),
		Example: `  posthorn event-type get cases.updated
  posthorn event-type get cases.updated --example > case.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			t, err := api.EventType(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case example:
				return r.printJSON(t.Example, true)
			case !r.wantsTable():
				return r.printOne(t.JSON())
			}
			kind := ""
			switch {
			case t.Operational:
				kind = "made by Posthorn only"
			case t.Open:
				kind = "open: any type below it may be published"
			}
			if err := r.fields("name", t.Name, "description", t.Description, "kind", kind); err != nil {
				return err
			}
			for _, part := range []struct {
				title string
				value jsontext.Value
			}{{"Example", t.Example}, {"Schema", t.Schema}} {
				if part.value == nil || part.value.Kind() == 'n' {
					continue
				}
				v := part.value.Clone()
				if err := v.Indent(jsontext.WithIndent("  ")); err != nil {
					return err
				}
				fmt.Fprintf(r.Out, "\n%s:\n", part.title)
				for line := range strings.SplitSeq(string(v), "\n") {
					fmt.Fprintln(r.Out, printable(line))
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&example, "example", false, "print the example only")
	return c
}
