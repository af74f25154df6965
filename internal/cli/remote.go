package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/config"
)

// remoteFlags say which server to call, and as whom.
type remoteFlags struct {
	server, token, tokenFile, tenant, context string
}

// noToken is said where no token is given at all.
const noToken = "There is no access token."

const defaultServer = "http://127.0.0.1:8420"

// remoteFlags adds the flags of commands that call a server.
func (r *runner) remoteFlags(c *cobra.Command) *cobra.Command {
	f := c.PersistentFlags()
	f.StringVar(&r.remote.server, "server", "", "`URL` of the server (POSTHORN_SERVER; default "+defaultServer+")")
	f.StringVar(&r.remote.token, "token", "", "access `token` (better: POSTHORN_TOKEN or --token-file)")
	f.StringVar(&r.remote.tokenFile, "token-file", "", "`file` that holds the access token, - for standard input (POSTHORN_TOKEN_FILE)")
	f.StringVar(&r.remote.tenant, "tenant", "", "`tenant` that a platform token speaks for (POSTHORN_TENANT)")
	f.StringVar(&r.remote.context, "context", "", "`name` of a saved server and token (POSTHORN_CONTEXT; see \"posthorn context\")")
	must(c.RegisterFlagCompletionFunc("context", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return r.completeContext(nil, nil, "")
	}))
	return c
}

// target is which server to call, and as whom.
type target struct {
	server, token, tenant string
	// context is the name of the saved one that the server or the token is of; empty
	// if flags and the environment said both.
	context string
}

// target finds it, once: a token on standard input can be read a single time.
func (r *runner) target() (target, error) {
	if r.found == nil {
		t, err := r.findTarget()
		if err != nil {
			return t, err
		}
		r.found = &t
	}
	return *r.found, nil
}

// findTarget looks for it: a flag goes before the environment, and the environment before
// the current context. A context's token goes to the context's server only, and its
// tenant with its token only.
func (r *runner) findTarget() (t target, err error) {
	given := r.remote.token != "" || r.remote.tokenFile != ""
	inEnvironment := r.getenv("POSTHORN_TOKEN") != "" || r.getenv("POSTHORN_TOKEN_FILE") != ""
	var saved *serverContext
	whole := firstOf(r.remote.server, r.getenv("POSTHORN_SERVER")) != "" && (given || inEnvironment)
	if !whole || firstOf(r.remote.context, r.getenv("POSTHORN_CONTEXT")) != "" {
		if saved, err = r.context(); err != nil {
			return t, err
		}
	}
	var flag, current serverContext
	if saved != nil {
		if r.remote.context != "" {
			flag = *saved
		} else {
			current = *saved
		}
	}
	t.server = firstOf(r.remote.server, flag.Server, r.getenv("POSTHORN_SERVER"), current.Server, defaultServer)
	tenant := firstOf(r.remote.tenant, r.getenv("POSTHORN_TENANT"))
	if r.remote.server == "" && (flag.Server != "" || r.getenv("POSTHORN_SERVER") == "" && current.Server != "") {
		t.context = saved.Name
	}
	for _, c := range []*serverContext{&flag, &current} {
		if c.Server != t.server {
			*c = serverContext{}
		}
	}
	switch {
	case !given && flag.Token != "":
		t.token, t.tenant, t.context = flag.Token, firstOf(r.remote.tenant, flag.Tenant), saved.Name
	case !given && !inEnvironment && current.Token != "":
		t.token, t.tenant, t.context = current.Token, firstOf(tenant, current.Tenant), saved.Name
	default:
		t.tenant = tenant
		t.token, err = r.token()
	}
	return t, err
}

// client returns the client that the flags and the environment ask for.
func (r *runner) client() (*client.Client, error) {
	t, err := r.target()
	if err != nil {
		return nil, err
	}
	r.sayContext(t)
	if inTheClear(t.server) {
		r.say("warning: the token goes to %s unencrypted; use https", t.server)
	}
	c, err := client.New(client.Config{
		Server:    t.server,
		Token:     t.token,
		Tenant:    t.tenant,
		UserAgent: "posthorn-cli/" + posthorn.Version,
	})
	if err != nil {
		return nil, &fault{exit: ExitUsage, message: sentence(err.Error()), err: err}
	}
	return c, nil
}

// sayContext says on a terminal whom a command that changes something talks to, when
// that was saved some day and is not in sight: the wrong one may be the current one.
func (r *runner) sayContext(t target) {
	if t.context == "" || !r.changes || r.told || !isTerminal(r.Err) {
		return
	}
	r.told = true // some commands make more than one client
	line := fmt.Sprintf("Context %s: %s", t.context, t.server)
	if t.tenant != "" {
		line += ", tenant " + t.tenant
	}
	r.say("%s", r.paint(r.Err, yellow, printable(line)))
}

// token finds the access token: a flag goes before the environment, and the
// token itself before a file.
func (r *runner) token() (string, error) {
	if r.remote.token != "" {
		if r.remote.tokenFile != "" {
			return "", usage("--token and --token-file exclude each other.")
		}
		if isTerminal(r.Err) {
			r.say("warning: --token leaves the token in your shell's history; use POSTHORN_TOKEN or --token-file")
		}
		return r.remote.token, nil
	}
	file := r.remote.tokenFile
	if file == "" {
		if token := r.getenv("POSTHORN_TOKEN"); token != "" {
			return strings.TrimSpace(token), nil
		}
		file = r.getenv("POSTHORN_TOKEN_FILE")
	}
	if file == "" {
		return "", (&fault{exit: ExitNotAllowed, message: noToken}).
			with("Set POSTHORN_TOKEN, use --token-file, or save one by \"posthorn context add\". Where the store is, \"posthorn token create --tenant NAME\" makes one.")
	}
	b, err := r.readSource(file, 16<<10) // a JWT may be long
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", &fault{exit: ExitNotAllowed, message: fmt.Sprintf("The token file %s is empty.", file)}
	}
	return token, nil
}

// readSource reads a file, or standard input for "-", of at most limit bytes.
func (r *runner) readSource(name string, limit int64) ([]byte, error) {
	in := r.In
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, unreadable(name, err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = usage("%s is larger than %d bytes.", name, limit)
	}
	return b, err
}

// unreadable says that a file cannot be read, once.
func unreadable(name string, err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return fmt.Errorf("%s cannot be read: %w", name, err)
}

// inTheClear reports whether a token sent there can be read on the way.
func inTheClear(server string) bool {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" || u.Hostname() == "localhost" {
		return false
	}
	a, err := netip.ParseAddr(u.Hostname())
	return err != nil || !a.IsLoopback()
}

func firstOf(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// confirm asks on a terminal; elsewhere it wants --yes.
func (r *runner) confirm(ctx context.Context, yes bool, question string) error {
	if yes {
		return nil
	}
	if !isTerminal(r.In) || !isTerminal(r.Err) {
		return usage("This cannot be undone, and there is no terminal to ask at.").with("Add --yes.")
	}
	fmt.Fprintf(r.Err, "%s [y/N] ", printable(question))
	answer := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(r.In).ReadString('\n') // no answer is a no
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case a := <-answer:
		if a == "y" || a == "yes" {
			return nil
		}
	}
	return &fault{exit: ExitFailed, message: "Nothing was done."}
}

// moment reads a flag that takes a time: RFC 3339, or a duration before (sign
// -1) or after (sign 1) now.
func (r *runner) moment(flag, text string, sign time.Duration) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	t, err := posthorn.ParseTime(text)
	if err == posthorn.ErrTimeForm {
		d, wrong := config.ParseDuration(text)
		if wrong != nil {
			return time.Time{}, usage("--%s %q is neither a time such as 2026-04-29T09:10:00Z nor a duration such as 2h or 7d.", flag, text)
		}
		t = r.now().Add(sign * d)
		err = posthorn.CheckTime(t)
	}
	if err != nil {
		return time.Time{}, usage("--%s %s: the time %v.", flag, text, err)
	}
	return t, nil
}

// period reads --since and --until.
func (r *runner) period(since, until string) (from, to time.Time, err error) {
	from, err1 := r.moment("since", since, -1)
	to, err2 := r.moment("until", until, -1)
	if err := errors.Join(err1, err2); err != nil {
		return from, to, err
	}
	if !from.IsZero() && !to.IsZero() && !from.Before(to) {
		return from, to, usage("--since is not before --until.")
	}
	return from, to, nil
}

// listFlags are what all lists have in common.
type listFlags struct {
	limit        int
	since, until string
}

func (l *listFlags) add(c *cobra.Command, period bool) {
	c.Flags().IntVar(&l.limit, "limit", 50, "`how many` to print; 0 for all")
	if period {
		c.Flags().StringVar(&l.since, "since", "", "accepted since: `2h`, 7d or 2026-04-29T09:10:00Z")
		c.Flags().StringVar(&l.until, "until", "", "accepted before this `time`")
	}
}

func (l *listFlags) check() error {
	if l.limit < 0 {
		return usage("--limit %d is negative.", l.limit)
	}
	return nil
}

// tellMore says that a list was cut.
func (r *runner) tellMore(more bool, limit int) {
	if more {
		r.say("These are the newest %d; --limit 0 prints all.", limit)
	}
}
