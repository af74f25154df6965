package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) endpointCommand() *cobra.Command {
	return r.remoteFlags(r.group("endpoint", "endpoints", "Manage the URLs that events are delivered to",
		`  posthorn endpoint create --url https://partner.example.com/hooks --events 'cases.*'
  posthorn endpoint list`,
		r.endpointCreate(), r.endpointList(), r.endpointGet(), r.endpointUpdate(),
		r.endpointStatus("pause", "paused", "Hold an endpoint's deliveries until it is resumed"),
		r.endpointStatus("resume", "active", "Send what was held, oldest first, and go on"),
		r.endpointDelete(), r.endpointTest(), r.endpointCancelPending(), r.endpointHealth(), r.endpointStats(), r.secretCommand(), r.settingsCommand()))
}

func (r *runner) endpointCreate() *cobra.Command {
	var e client.NewEndpoint
	var paused bool
	c := &cobra.Command{
		Use: "create --url URL --events PATTERN,…", Short: "Create an endpoint and print its secret", Args: takes(),
		Annotations: calls("POST /endpoints"),
		Example:     `  posthorn endpoint create --url https://partner.example.com/hooks --events 'cases.*,assignments.*'`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if e.URL == "" || len(e.Events) == 0 {
				return usage("--url and --events are needed.").with("As in: %s", strings.TrimSpace(cmd.Example))
			}
			if paused {
				e.Status = "paused"
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			made, err := api.CreateEndpoint(cmd.Context(), e)
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				r.say("This is the only time that the secret is printed.")
				return r.printOne(made.JSON())
			}
			if err := r.printEndpoint(made); err != nil {
				return err
			}
			r.say("Keep the secret now: it is printed this once. The receiver verifies signatures with it.")
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&e.URL, "url", "", "`URL` that deliveries are sent to")
	f.StringSliceVar(&e.Events, "events", nil, "event types or `patterns`, such as 'cases.*' (repeatable)")
	f.StringVar(&e.Description, "description", "", "a `label`")
	f.BoolVar(&paused, "paused", false, "create it paused")
	completes(c, "events", r.typeNames)
	return c
}

func (r *runner) printEndpoint(e *client.Endpoint) error {
	return r.fields("id", e.ID, "url", e.URL, "description", e.Description, "events", strings.Join(e.Events, ", "),
		"status", e.Status, "secret", e.Secret, "created", shown(e.CreatedAt), "updated", shown(e.UpdatedAt))
}

// showEndpoint prints an endpoint in the form that was asked for.
func (r *runner) showEndpoint(e *client.Endpoint) error {
	if !r.wantsTable() {
		return r.printOne(e.JSON())
	}
	return r.printEndpoint(e)
}

func (r *runner) endpointList() *cobra.Command {
	var status string
	c := &cobra.Command{
		Use: "list", Short: "List endpoints, newest first", Args: takes(),
		Annotations: calls("GET /endpoints"),
		Example:     "  posthorn endpoint list --status paused",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if status != "" && status != "active" && status != "paused" {
				return usage("--status %s is neither active nor paused.", status)
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			out := r.list("ID", "STATUS", "URL", "EVENTS", "DESCRIPTION")
			for e, err := range api.Endpoints(cmd.Context()) {
				if err != nil {
					return err
				}
				if status != "" && e.Status != status {
					continue
				}
				tone := plain
				if e.Status == "paused" {
					tone = yellow
				}
				if err := out.add(e.JSON(), tone, e.ID, e.Status, e.URL, strings.Join(e.Events, ","), e.Description); err != nil {
					return err
				}
			}
			return out.close("There are no endpoints. \"posthorn endpoint create --help\" shows how to make one.")
		},
	}
	c.Flags().StringVar(&status, "status", "", "only those that are `active` or paused")
	return c
}

func (r *runner) endpointGet() *cobra.Command {
	return &cobra.Command{
		Use: "get ID", Short: "Print an endpoint", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("GET /endpoints/{webhookId}"),
		Example:     "  posthorn endpoint get wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			e, err := api.Endpoint(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return r.showEndpoint(e)
		},
	}
}

func (r *runner) endpointUpdate() *cobra.Command {
	var ch client.EndpointChange
	var url, description string
	c := &cobra.Command{
		Use: "update ID", Short: "Change an endpoint's URL, events or description", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("PATCH /endpoints/{webhookId}"),
		Example:     "  posthorn endpoint update wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --events 'cases.*'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("url") {
				ch.URL = &url
			}
			if cmd.Flags().Changed("description") {
				ch.Description = &description
			}
			if ch.URL == nil && ch.Description == nil && ch.Events == nil {
				return usage("There is nothing to change.").with("Give --url, --events or --description.")
			}
			return r.changeEndpoint(cmd, args[0], ch)
		},
	}
	f := c.Flags()
	f.StringVar(&url, "url", "", "`URL` that deliveries are sent to from now on, waiting ones too")
	f.StringSliceVar(&ch.Events, "events", nil, "event types or `patterns` that replace the old ones (repeatable)")
	f.StringVar(&description, "description", "", "a `label`; '' clears it")
	completes(c, "events", r.typeNames)
	return c
}

func (r *runner) changeEndpoint(cmd *cobra.Command, id string, ch client.EndpointChange) error {
	api, err := r.client()
	if err != nil {
		return err
	}
	e, err := api.UpdateEndpoint(cmd.Context(), id, ch)
	if err != nil {
		return err
	}
	return r.showEndpoint(e)
}

func (r *runner) endpointStatus(verb, status, short string) *cobra.Command {
	return &cobra.Command{
		Use: verb + " ID", Short: short, Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("PATCH /endpoints/{webhookId}", "GET /endpoints/{webhookId}/health"),
		Example:     "  posthorn endpoint " + verb + " wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			// What waited is counted before it is sent, and what is held after the pause.
			var h *client.Health
			if status == "active" {
				h, _ = api.EndpointHealth(cmd.Context(), args[0]) // nil if it is not known
			}
			e, err := api.UpdateEndpoint(cmd.Context(), args[0], client.EndpointChange{Status: &status})
			if err != nil {
				return err
			}
			if status == "paused" {
				h, _ = api.EndpointHealth(cmd.Context(), args[0])
			}
			r.sayWaiting(h, e)
			return r.showEndpoint(e)
		},
	}
}

// sayWaiting says what a pause holds, or what the end of one sends. h is nil when
// that is not known, as to a token that may not read.
func (r *runner) sayWaiting(h *client.Health, e *client.Endpoint) {
	if h == nil || e.Status == "active" && (h.Condition != "paused" || h.Waiting == 0) {
		return
	}
	waiting := fmt.Sprintf("%d deliveries wait", h.Waiting)
	switch {
	case h.WaitingCapped:
		waiting = fmt.Sprintf("%d deliveries or more wait", h.Waiting)
	case h.Waiting == 1:
		waiting = "1 delivery waits"
	case h.Waiting == 0:
		waiting = "No delivery waits"
	}
	if e.Status == "paused" {
		r.say("%s; what comes is held until \"posthorn endpoint resume %s\".", waiting, e.ID)
	} else {
		r.say("%s and will be sent, oldest first.", waiting)
	}
}

func (r *runner) endpointDelete() *cobra.Command {
	var yes bool
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete an endpoint and cancel what waits for it", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("DELETE /endpoints/{webhookId}", "GET /endpoints/{webhookId}"),
		Example:     "  posthorn endpoint delete wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			match := ""
			if !yes {
				e, err := api.Endpoint(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				match = e.ETag // what is deleted is what was shown
				if err := r.confirm(cmd.Context(), false, fmt.Sprintf("Delete %s (%s) and cancel what waits for it?", e.ID, e.URL)); err != nil {
					return err
				}
			}
			if err := api.DeleteEndpoint(cmd.Context(), args[0], match); err != nil {
				return err
			}
			r.say("Endpoint %s is deleted.", args[0])
			return nil
		},
	}
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (r *runner) endpointHealth() *cobra.Command {
	return &cobra.Command{
		Use: "health ID", Short: "Print how an endpoint fares", Args: takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Annotations: calls("GET /endpoints/{webhookId}/health"),
		Example:     "  posthorn endpoint health wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			h, err := api.EndpointHealth(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if !r.wantsTable() {
				return r.printOne(h.JSON())
			}
			waiting := fmt.Sprint(h.Waiting)
			if h.WaitingCapped {
				waiting += " or more"
			}
			return r.fields("condition", h.Condition, "reason", h.Reason, "since", shown(h.Since),
				"last success", shown(h.LastSuccessAt), "last failure", shown(h.LastFailureAt), "waiting", waiting,
				"next attempt", r.ahead(h.NextAttemptAt), "pauses at", r.ahead(h.PauseAt), "blocked by", h.BlockedBy)
		},
	}
}
