package cli

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/send"
	"github.com/posthorn/posthorn/webhook"
)

func (r *runner) listenCommand() *cobra.Command {
	var flags followFlags
	var to, timeout string
	c := &cobra.Command{
		Use: "listen --forward-to URL", Short: "Forward events to a program on this machine", Args: takes(),
		Annotations: calls("GET /stream"),
		Example: `  posthorn listen --forward-to http://localhost:3000/hooks
  posthorn listen --forward-to http://localhost:3000/hooks --types 'cases.*'`,
		Long: "Sends each event that is published to URL, with the bytes and headers of a real\n" +
			"delivery, one after the other and each once, until Ctrl-C. It needs no endpoint and\n" +
			"no address that can be reached from outside: the one connection is to the server.\n" +
			"The signing secret is printed at the start and is the same each time with the same\n" +
			"token. When the connection is lost, also by a restart of the server, it goes on where\n" +
			"it broke off.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			limit, err := config.ParseDuration(timeout)
			if err != nil || limit <= 0 || limit > 10*time.Minute {
				return usage("--timeout %s is not a duration up to 10m.", timeout)
			}
			return r.listen(cmd.Context(), &flags, to, limit)
		},
	}
	c.Flags().StringVar(&to, "forward-to", "", "`URL` that events are sent to")
	c.Flags().StringVar(&timeout, "timeout", config.FormatDuration(posthorn.DefaultTimeout), "how `long` the program may take to answer")
	flags.add(r, c)
	return r.remoteFlags(c)
}

// near are the networks that a developer's program may be in: nobody but the one
// who sits here says where to send.
var near = []netip.Prefix{
	netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"), netip.MustParsePrefix("fc00::/7"),
}

// forwarder sends what is followed with the client that makes real attempts.
type forwarder struct {
	client  *send.Client
	to      string
	key     []byte
	timeout time.Duration
	sent    int
}

func (r *runner) listen(ctx context.Context, flags *followFlags, to string, timeout time.Duration) error {
	if to == "" {
		return usage("--forward-to is needed.").with("As in: posthorn listen --forward-to http://localhost:3000/hooks")
	}
	guarded := send.Config{AllowHTTP: true, AllowUnderscoreHosts: true, AllowPrivate: near, Now: r.now}
	if err := send.NewGuard(guarded).CheckURL(to); err != nil {
		return usage("--forward-to: %v.", err)
	}
	server, err := r.target()
	if err != nil {
		return err
	}
	f := &forwarder{to: to, key: listenKey(server.token), timeout: timeout}
	if f.client, err = send.New(guarded); err != nil {
		return err
	}
	defer f.client.Close()
	began := func() {
		r.say("Forwarding events to %s, signed with %s", printable(to), webhook.FormatSecret(f.key))
		r.say("Ready; Ctrl-C ends it.")
	}
	return r.follow(ctx, flags, began, func(e *client.Streamed) error { return r.forward(ctx, f, e) })
}

// listenKey is the key that listen signs with: always the same for a token, so
// that a program can keep it, and nothing that leads back to the token.
func listenKey(token string) []byte {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte("posthorn listen"))
	return mac.Sum(nil)
}

// forward makes the one attempt for an event and prints what came of it.
func (r *runner) forward(ctx context.Context, f *forwarder, e *client.Streamed) error {
	f.sent++
	a := f.client.Send(ctx, send.Request{
		URL: f.to, Signers: []*webhook.Signer{webhook.NewSigner(f.key)}, EventRef: e.ID, EventType: e.Type,
		Delivery: posthorn.MakeID(r.now(), 0, uint16(f.sent)), Attempt: 1, Test: e.Test,
		Body: e.Body, Timeout: f.timeout, Endpoint: 1,
	})
	if ctx.Err() != nil {
		return nil // it was cut short, which is nobody's fault
	}
	if !r.wantsTable() {
		return r.printJSON(toJSON(struct {
			Event       string  `json:"event"`
			Type        string  `json:"type"`
			At          *string `json:"at"`
			Class       string  `json:"class"`
			Status      int     `json:"status"`
			DurationMS  float64 `json:"duration_ms"`
			Explanation string  `json:"explanation"`
		}{e.ID, e.Type, milliseconds(a.At), a.Class.String(), a.Status, float64(a.Duration.Microseconds()) / 1000, a.Explain()}), false)
	}
	result, tone := a.Class.String(), red
	if a.Status != 0 {
		result = fmt.Sprint(a.Status)
	}
	why := "  " + a.Explain()
	if a.Succeeded() {
		tone, why = green, ""
	}
	line := fmt.Sprintf("%s  -> %-7s %7s  %-28s  %s%s", clock(a.At.Local()), result, a.Duration.Round(time.Millisecond), e.Type, e.ID, why)
	_, err := fmt.Fprintln(r.Out, r.paint(r.Out, tone, printable(line)))
	return err
}
