package cli

import (
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"
)

func (r *runner) triggerCommand() *cobra.Command {
	var flags sendFlags
	var edits []string
	c := &cobra.Command{
		Use: "trigger TYPE", Short: "Publish the catalogue's example of an event type", Args: takes("TYPE"), ValidArgsFunction: first(r.typeNames),
		Annotations: calls("POST /events", "GET /event-types/{type}", "GET /events/{eventId}"),
		Example: `  posthorn trigger cases.updated
  posthorn trigger cases.updated --set data.id=42 --wait`,
		Long: "Publishes the example that the catalogue has for the type, or --data in its place,\n" +
			"marked as a test: receivers get posthorn-test: true, and what comes of it changes\n" +
			"neither an endpoint's health nor its statistics.\n" +
			"--set changes members of it: data.case.id=42, data.tags.0=new, data.note=null.\n" +
			"What is not JSON is taken as text; quote to force it: --set 'data.id=\"42\"'.",
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := parseEdits(edits)
			if err != nil {
				return err
			}
			var data jsontext.Value
			if flags.data != "" {
				data, err = r.readData(flags.data)
			} else {
				data, err = r.example(cmd, args[0])
			}
			if err != nil {
				return err
			}
			if data, err = applyEdits(data, changes); err != nil {
				return err
			}
			flags.test = true
			return r.send(cmd.Context(), args[0], data, flags)
		},
	}
	flags.add(c, "")
	c.Flags().StringArrayVar(&edits, "set", nil, "change a member of the data, as `data.id=42` (repeatable)")
	return r.remoteFlags(c)
}

func (r *runner) example(cmd *cobra.Command, name string) (jsontext.Value, error) {
	api, err := r.client()
	if err != nil {
		return nil, err
	}
	t, err := api.EventType(cmd.Context(), name)
	if err != nil {
		return nil, err
	}
	if t.Example == nil || t.Example.Kind() != '{' {
		return nil, usage("The catalogue has no example for %s.", name).with("Give --data.")
	}
	return t.Example, nil
}
