package cli

import (
	"fmt"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/curl"
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
			"sends nothing and knows nothing of it. The command runs in any POSIX shell, however\n" +
			"large the event is; what a terminal would act on is written as escapes.",
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
			command, err := r.curlCommand(to, e, key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(r.Out, command)
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

// curlCommand is the delivery of an event as a command. It fails if the event, which is
// what the server answered, has an id or a type that no delivery can have.
func (r *runner) curlCommand(to string, e *client.Published, key []byte) (string, error) {
	for _, f := range [][2]string{{"id", e.ID}, {"type", e.Type}} {
		if escaped, err := jsontext.AppendQuote(nil, f[1]); err != nil || f[1] == "" || string(escaped) != `"`+f[1]+`"` {
			return "", noDelivery(fmt.Errorf("the event's %s is empty, or holds a quote, a backslash or a control character", f[0]))
		}
	}
	now := r.now()
	body := posthorn.AppendBody(nil, e.ID, e.Type, e.Timestamp, e.Data)
	text, err := curl.Command{
		Options: "-sS", URL: to, Body: body, Wrapped: true,
		Headers: [][2]string{
			{"Content-Type", "application/json"}, {"User-Agent", "Posthorn/" + posthorn.Version},
			{webhook.HeaderID, e.ID}, {webhook.HeaderTimestamp, fmt.Sprint(now.Unix())},
			{webhook.HeaderSignature, string(webhook.Sign(nil, e.ID, now, body, key))},
			{"posthorn-delivery", posthorn.MakeID(now, 0, 0).Text(posthorn.DeliveryPrefix)}, {"posthorn-attempt", "1"}, {"posthorn-event-type", e.Type},
		},
	}.Text()
	if err != nil {
		return "", noDelivery(err)
	}
	return text, nil
}

func noDelivery(err error) error {
	return (&fault{exit: ExitFailed, message: sentence(err.Error()), err: err}).
		with("No delivery can carry it: is that the server you meant? \"posthorn doctor\" looks at it.")
}
