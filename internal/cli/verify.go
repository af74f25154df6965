package cli

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/verdict"
	"github.com/posthorn/posthorn/webhook"
)

// What is read of files that hold a body, headers or secrets.
const (
	maxBodyFile   = 16 << 20
	maxHeaderFile = 1 << 20
	maxSecretFile = 4096
)

// secretFlag adds the flag for signing secrets.
func secretFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "secret-file", "", "`file` that holds the endpoint's secret, - for standard input (default POSTHORN_WEBHOOK_SECRET)")
	must(c.MarkFlagFilename("secret-file"))
}

// secrets reads the endpoint's secrets, separated by white space or commas; the
// current one comes first. They are never taken from the command line, which other
// users of the machine can read.
func (r *runner) secrets(file string) ([]string, error) {
	text, where := r.getenv("POSTHORN_WEBHOOK_SECRET"), "POSTHORN_WEBHOOK_SECRET"
	if file != "" {
		b, err := r.readSource(file, maxSecretFile)
		if err != nil {
			return nil, err
		}
		text, where = string(b), file
		if file == "-" {
			where = "Standard input"
		}
	}
	all := strings.FieldsFunc(text, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' || c == '\n' || c == '\r' })
	if len(all) == 0 {
		if file == "" {
			return nil, usage("There is no signing secret.").with("Set POSTHORN_WEBHOOK_SECRET or use --secret-file. Creating the endpoint printed it: whsec_…")
		}
		return nil, usage("%s holds no secret.", where)
	}
	for i, s := range all {
		if _, err := webhook.ParseSecret(s); err != nil {
			which := ""
			if len(all) > 1 {
				which = fmt.Sprintf(" (%d of %d)", i+1, len(all))
			}
			return nil, usage("%s holds something that is no signing secret%s: %s.", where, which, misread(s)).
				with("A secret is \"whsec_\" and the standard padded base64 of 24 to 64 bytes; take it as creating the endpoint printed it.")
		}
	}
	return all, nil
}

// misread says what a text is that is no secret, without repeating it.
func misread(s string) string {
	body, prefixed := strings.CutPrefix(s, "whsec_")
	switch {
	case strings.HasPrefix(s, "pht_"):
		return "it is an access token"
	case strings.ContainsAny(s, `"'`):
		return "it has quotes around it"
	case !prefixed:
		return "it does not begin with whsec_"
	case strings.ContainsAny(body, "-_"):
		return "it is in the URL-safe alphabet of base64"
	case len(body)%4 != 0:
		return "it was cut, or its padding (=) is gone"
	}
	return "what follows whsec_ is not base64 of 24 to 64 bytes"
}

func (r *runner) verifyCommand() *cobra.Command {
	var secretFile, headerFile, bodyFile, at, tolerance string
	var headers []string
	c := &cobra.Command{
		Use: "verify", Short: "Say whether a request is signed rightly, and if not, why", Args: takes(),
		Example: `  posthorn verify --secret-file secret.txt --headers headers.txt < body.json
  posthorn verify --headers headers.txt --body body.json --at 2026-04-29T09:10:00Z
  posthorn verify -H 'webhook-id: evt_1' -H 'webhook-timestamp: 1777453800' -H 'webhook-signature: v1,…' < body.json`,
		Long: "Judges one request from files: the headers as a receiver logged them, the body byte for\n" +
			"byte. Headers are lines of \"name: value\" (also as curl -v prints them), or a JSON\n" +
			"object. With several secrets, separated by white space or commas, any may fit.\n" +
			"Where the signature does not fit, it tries what commonly goes wrong and names the\n" +
			"cause: a wrong secret, an altered body, a clock, a cut header, another encoding.\n" +
			"Nothing is sent anywhere.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n := countOf("-", secretFile, headerFile, bodyFile); n > 1 {
				return usage("Standard input can be one thing only; --body is read from it unless it names a file.")
			}
			req := verdict.Request{Header: http.Header{}, Now: r.now()}
			var err error
			if req.Secrets, err = r.secrets(secretFile); err != nil {
				return err
			}
			if req.Tolerance, err = config.ParseDuration(tolerance); err != nil {
				return usage("--tolerance %q is not a duration such as 5m.", tolerance)
			}
			if at != "" {
				if req.Now, err = r.moment("at", at, -1); err != nil {
					return err
				}
			}
			if headerFile != "" {
				b, err := r.readSource(headerFile, maxHeaderFile)
				if err != nil {
					return err
				}
				if err := readHeaders(req.Header, b); err != nil {
					return err
				}
			}
			for _, h := range headers {
				if err := readHeaders(req.Header, []byte(h)); err != nil {
					return err
				}
			}
			if len(req.Header) == 0 {
				return usage("There are no headers.").with("Give --headers FILE or -H 'name: value'.")
			}
			if req.Body, err = r.readSource(bodyFile, maxBodyFile); err != nil {
				return err
			}
			v, err := verdict.Judge(req)
			if err != nil {
				return err
			}
			return r.showVerdict(&req, v)
		},
	}
	f := c.Flags()
	secretFlag(c, &secretFile)
	f.StringVar(&headerFile, "headers", "", "`file` that holds the request's headers")
	f.StringArrayVarP(&headers, "header", "H", nil, "a header as '`name: value`' (repeatable)")
	f.StringVar(&bodyFile, "body", "-", "`file` that holds the body, - for standard input")
	f.StringVar(&at, "at", "", "`when` the request came: 2026-04-29T09:10:00Z, or 2h for two hours ago (default now)")
	f.StringVar(&tolerance, "tolerance", "5m", "`how far` the timestamp may be off")
	must(c.MarkFlagFilename("headers"))
	must(c.MarkFlagFilename("body"))
	return c
}

func countOf(what string, all ...string) (n int) {
	for _, s := range all {
		if s == what {
			n++
		}
	}
	return n
}

func (r *runner) showVerdict(req *verdict.Request, v verdict.Verdict) error {
	sum := sha256.Sum256(req.Body)
	id := req.Header.Get(webhook.HeaderID)
	var err error
	if r.wantsTable() {
		sent := shown(v.At)
		if sent != "" {
			sent += fmt.Sprintf(" (%s)", ago(req.Now.Sub(v.At)))
		}
		err = r.fields("verdict", strings.ReplaceAll(string(v.Cause), "_", " "), "id", id, "sent", sent,
			"body", fmt.Sprintf("%d bytes, SHA-256 %x", len(req.Body), sum))
	} else {
		err = r.printOne(toJSON(struct {
			Valid       bool    `json:"valid"`
			Cause       string  `json:"cause"`
			Explanation string  `json:"explanation"`
			Hint        string  `json:"hint"`
			Secret      int     `json:"secret"`
			ID          string  `json:"webhook_id"`
			SentAt      *string `json:"sent_at"`
			BodyBytes   int     `json:"body_bytes"`
			BodySHA256  string  `json:"body_sha256"`
		}{v.Cause == verdict.Valid, string(v.Cause), v.Explanation, v.Hint, v.Secret, strings.ToValidUTF8(id, "\uFFFD"), milliseconds(v.At), len(req.Body), fmt.Sprintf("%x", sum)}))
	}
	if err != nil {
		return err
	}
	if v.Cause != verdict.Valid {
		return &fault{exit: ExitTestFailed, message: v.Explanation, hint: v.Hint}
	}
	r.say("%s", r.paint(r.Err, green, v.Explanation))
	return nil
}

func ago(d time.Duration) string {
	if d = d.Round(time.Second); d < 0 {
		return "in " + config.FormatDuration(-d)
	}
	return config.FormatDuration(d) + " before"
}

// readHeaders reads headers as logs and tools print them.
func readHeaders(h http.Header, text []byte) error {
	text = bytes.TrimPrefix(bytes.TrimSpace(text), []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(text, []byte("{")) {
		return readHeaderObject(h, text)
	}
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimRight(line, "\r ")
		if strings.HasPrefix(line, "* ") || strings.HasPrefix(line, "{ [") { // curl talks
			continue
		}
		line = strings.TrimPrefix(strings.TrimPrefix(line, "> "), "< ")
		if line == "" || line == ">" || line == "<" {
			if len(h) > 0 {
				return nil // the body follows
			}
			continue
		}
		name, value, found := strings.Cut(line, ":")
		if !found || strings.ContainsAny(name, " \t") {
			if strings.Contains(line, " HTTP/") || strings.HasPrefix(line, "HTTP/") {
				continue // the request line
			}
			return usage("Line %d of the headers is not \"name: value\".", n+1)
		}
		h.Add(strings.TrimSpace(name), strings.Trim(value, " \t"))
	}
	return nil
}

// readHeaderObject reads {"webhook-id":"…"}; values may be lists.
func readHeaderObject(h http.Header, text []byte) error {
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return usage("The headers look like JSON and are not an object of names and values.")
	}
	for name, v := range all {
		switch v := v.(type) {
		case string:
			h.Add(name, v)
		case float64:
			h.Add(name, fmt.Sprintf("%.0f", v))
		case []any:
			for _, one := range v {
				h.Add(name, fmt.Sprint(one))
			}
		default:
			return usage("The header %s is neither text nor a list of texts.", printable(name))
		}
	}
	return nil
}
