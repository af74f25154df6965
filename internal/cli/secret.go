package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/client"
)

func (r *runner) secretCommand() *cobra.Command {
	return r.group("secret", "secrets", "Reveal or rotate what an endpoint's deliveries are signed with",
		`  posthorn endpoint secret reveal wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW
  posthorn endpoint secret rotate wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --overlap 48h`,
		r.secretReveal(), r.secretRotate())
}

func (r *runner) secretReveal() *cobra.Command {
	return &cobra.Command{
		Use: "reveal ID", Short: "Print the secret, and former ones that still sign", Long: "Former ones come with the time at which they end. That it was shown is audited.",
		Annotations: calls("GET /endpoints/{webhookId}/secret"),
		Args:        takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Example: "  posthorn endpoint secret reveal wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW",
		RunE: func(cmd *cobra.Command, args []string) error {
			api, err := r.client()
			if err != nil {
				return err
			}
			s, err := api.EndpointSecret(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return r.printSecrets(s)
		},
	}
}

func (r *runner) printSecrets(s *client.Secrets) error {
	if !r.wantsTable() {
		return r.printOne(s.JSON())
	}
	pairs := []string{"secret", s.Secret}
	for _, p := range s.Previous {
		pairs = append(pairs, "until "+r.ahead(p.ExpiresAt), p.Secret)
	}
	return r.fields(pairs...)
}

func (r *runner) secretRotate() *cobra.Command {
	var overlap time.Duration
	var file string
	c := &cobra.Command{
		Use: "rotate ID", Short: "Give an endpoint a new secret and print it",
		Annotations: calls("POST /endpoints/{webhookId}/secret/rotate"),
		Long:        "Until the overlap ends deliveries carry a signature of each secret, so that the receiver can change over in peace. One's own secret comes from a file, standard input or POSTHORN_ENDPOINT_SECRET, never from the command line.",
		Args:        takes("ID"), ValidArgsFunction: first(r.endpointIDs),
		Example: `  posthorn endpoint secret rotate wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --overlap 48h
  posthorn endpoint secret rotate wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW --overlap 0 --secret-file -`,
		RunE: func(cmd *cobra.Command, args []string) error {
			rotation := client.Rotation{Secret: r.getenv("POSTHORN_ENDPOINT_SECRET")}
			if cmd.Flags().Changed("overlap") {
				if overlap < 0 || overlap%time.Second != 0 {
					return usage("--overlap %v is not whole seconds, 0 or more.", overlap)
				}
				rotation.Overlap = &overlap
			}
			if file != "" {
				b, err := r.readSource(file, 4096)
				if err != nil {
					return err
				}
				if rotation.Secret = strings.TrimSpace(string(b)); rotation.Secret == "" {
					return usage("%s holds no secret.", file)
				}
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			s, err := api.RotateSecret(cmd.Context(), args[0], rotation)
			if err != nil {
				return err
			}
			return r.printSecrets(s)
		},
	}
	c.Flags().DurationVar(&overlap, "overlap", 24*time.Hour, "how long the former secret signs too, at most 168h; 0 ends all former ones now")
	c.Flags().StringVar(&file, "secret-file", "", "`file` with the new secret, - for standard input; one is made without it")
	return c
}
