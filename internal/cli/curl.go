package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

func (r *runner) eventCurl() *cobra.Command {
	var to, secretFile string
	c := &cobra.Command{
		Use: "curl ID --to URL", Short: "Print a curl command that sends an event again", Args: takes("ID"), ValidArgsFunction: first(r.eventIDs),
		Annotations: calls("GET /events/{eventId}"),
		Example: `  posthorn event curl evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --to http://localhost:3000/hooks
  posthorn event curl evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B --to http://localhost:3000/hooks | sh`,
		Long: "The command has the bytes and headers of a delivery and a signature of now, which\n" +
			"receivers take for five minutes. It is made with the secret that \"posthorn listen\"\n" +
			"prints, or with the one in --secret-file; neither is in the command. The server\n" +
			"sends nothing and knows nothing of it.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if to == "" {
				return usage("--to is needed: the URL of your program.")
			}
			if err := send.NewGuard(send.Config{AllowHTTP: true, AllowUnderscoreHosts: true, AllowPrivate: near}).CheckURL(to); err != nil {
				return usage("--to: %v.", err)
			}
			key, err := r.curlKey(secretFile)
			if err != nil {
				return err
			}
			api, err := r.client()
			if err != nil {
				return err
			}
			e, err := api.Event(cmd.Context(), args[0])
			switch {
			case err != nil:
				return err
			case e.Data == nil:
				return &fault{exit: ExitNotFound, message: "The event's data was erased."}
			}
			body := posthorn.AppendBody(nil, e.ID, e.Type, e.Timestamp, e.Data)
			_, err = fmt.Fprintln(r.Out, r.curlCommand(to, e.ID, e.Type, body, key))
			return err
		},
	}
	c.Flags().StringVar(&to, "to", "", "`URL` to send to")
	c.Flags().StringVar(&secretFile, "secret-file", "", "`file` that holds the secret to sign with, whsec_…; - for standard input")
	return c
}

// curlKey is the key to sign with.
func (r *runner) curlKey(file string) ([]byte, error) {
	if file == "" {
		server, err := r.target()
		return listenKey(server.token), err
	}
	b, err := r.readSource(file, 4096)
	if err != nil {
		return nil, err
	}
	key, err := webhook.ParseSecret(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, usage("--secret-file: %v.", err)
	}
	return key, nil
}

func (r *runner) curlCommand(to, id, eventType string, body, key []byte) string {
	now := r.now()
	headers := [][2]string{
		{"Content-Type", "application/json"}, {"User-Agent", "Posthorn/" + posthorn.Version},
		{webhook.HeaderID, id}, {webhook.HeaderTimestamp, fmt.Sprint(now.Unix())},
		{webhook.HeaderSignature, string(webhook.Sign(nil, id, now, body, key))},
		{"posthorn-delivery", posthorn.MakeID(now, 0, 0).Text(posthorn.DeliveryPrefix)}, {"posthorn-attempt", "1"}, {"posthorn-event-type", eventType},
	}
	var b strings.Builder
	b.WriteString("curl -sS " + shellQuoted(to))
	for _, h := range headers {
		b.WriteString(" \\\n  -H " + shellQuoted(h[0]+": "+h[1]))
	}
	b.WriteString(" \\\n  --data-binary " + shellQuoted(string(body)))
	return b.String()
}

// shellQuoted makes one word of a POSIX shell of any text without NUL.
func shellQuoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
