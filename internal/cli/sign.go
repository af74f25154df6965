package cli

import (
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/curl"
	"github.com/posthorn/posthorn/webhook"
)

func (r *runner) signCommand() *cobra.Command {
	var secretFile, bodyFile, id, at, to string
	c := &cobra.Command{
		Use: "sign", Short: "Print the headers that sign a body", Args: takes(),
		Example: `  posthorn sign --secret-file secret.txt < body.json
  posthorn sign --secret-file secret.txt --body body.json --curl http://localhost:3000/hooks`,
		Long: "Signs a body as Posthorn does, to try a receiver with. The bytes are signed as they\n" +
			"are, a line break at the end too. With several secrets there is a signature of each, as\n" +
			"while a secret is rotated. --curl prints the command that sends it.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if secretFile == "-" && bodyFile == "-" {
				return usage("Standard input can be one thing only; --body is read from it unless it names a file.")
			}
			if id == "" {
				id = "evt_test_" + strings.ToLower(rand.Text()[:20])
			}
			if !posthorn.ValidKey(strings.TrimPrefix(id, posthorn.EventPrefix)) {
				return usage("--id %q is not an event's id: letters, digits, - and _, at most 128.", id)
			}
			when, err := r.moment("at", at, -1)
			if err != nil {
				return err
			}
			if when.IsZero() {
				when = r.now()
			}
			secrets, err := r.secrets(secretFile)
			if err != nil {
				return err
			}
			keys := make([][]byte, len(secrets))
			for i, s := range secrets {
				if keys[i], err = webhook.ParseSecret(s); err != nil {
					return err
				}
			}
			body, err := r.readSource(bodyFile, maxBodyFile)
			if err != nil {
				return err
			}
			return r.showSigned(id, when, string(webhook.Sign(nil, id, when, body, keys...)), to, bodyFile)
		},
	}
	f := c.Flags()
	secretFlag(c, &secretFile)
	f.StringVar(&bodyFile, "body", "-", "`file` that holds the body, - for standard input")
	f.StringVar(&id, "id", "", "the webhook-id, an event's `id` (default one that is made up)")
	f.StringVar(&at, "at", "", "`when` it is sent: 2026-04-29T09:10:00Z, or 10m for ten minutes ago (default now)")
	f.StringVar(&to, "curl", "", "print a curl command that sends it to this `URL`")
	must(c.MarkFlagFilename("body"))
	return c
}

func (r *runner) showSigned(id string, at time.Time, signature, url, bodyFile string) error {
	stamp := strconv.FormatInt(at.Unix(), 10)
	if !r.wantsTable() {
		return r.printOne(toJSON(struct {
			ID        string `json:"webhook-id"`
			Timestamp string `json:"webhook-timestamp"`
			Signature string `json:"webhook-signature"`
		}{id, stamp, signature}))
	}
	headers := [][2]string{{webhook.HeaderID, id}, {webhook.HeaderTimestamp, stamp}, {webhook.HeaderSignature, signature}}
	if url == "" {
		for _, h := range headers {
			if _, err := fmt.Fprintln(r.Out, h[0]+": "+h[1]); err != nil {
				return err
			}
		}
		return nil
	}
	command, err := curl.Command{
		Options: "-sS -i -X POST", URL: url, BodyFile: bodyFile,
		Headers: append([][2]string{{"content-type", "application/json"}}, headers...),
	}.Text()
	if err != nil {
		return usage("--curl: %v.", err)
	}
	_, err = fmt.Fprintln(r.Out, command)
	return err
}
