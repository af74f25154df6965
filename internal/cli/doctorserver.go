package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
)

// maxSkew is how far a server's clock may be off: JWTs are taken so long after
// their end, and receivers refuse signatures of other times (five minutes, by
// Standard Webhooks).
const maxSkew = access.Leeway

// serverCheck is what the checks of a server share.
type serverCheck struct {
	target
	own   bool // it is the service of the settings
	http  *http.Client
	here  *http.Client // reaches this machine only, and by no proxy
	now   func() time.Time
	cfg   *config.Config
	up    bool
	noTok error // why there is no token
}

// serverChecks look at the server that commands would call, or else at the one of
// the settings.
func (r *runner) serverChecks(cfg *config.Config, installed bool) []doctor.Check {
	s := &serverCheck{now: r.now, cfg: cfg, http: askingClient(nil), here: askingClient(onlyHere(isHere))}
	s.target, s.noTok = r.target()
	if installed && r.remote.server == "" && r.getenv("POSTHORN_SERVER") == "" && s.server == defaultServer {
		s.server, s.own = ownServer(cfg), true
	}
	s.server = strings.TrimRight(firstOf(s.server, defaultServer), "/")
	return []doctor.Check{
		{Name: "server", Run: s.reach}, {Name: "token", Run: s.tryToken}, {Name: "metrics", Run: s.reachOps},
	}
}

func askingClient(t http.RoundTripper) *http.Client {
	return &http.Client{
		Transport: t, Timeout: doctor.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// errElsewhere: the address is not one of this machine's.
var errElsewhere = errors.New("it is not on this machine")

// onlyHere dials addresses that isHere, of this machine, only: what settings name may have moved, or
// be a mistake, and a token must not follow it.
func onlyHere(isHere func(netip.Addr) bool) http.RoundTripper {
	dialer := net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		a, err := netip.ParseAddrPort(address)
		if err != nil || !isHere(a.Addr()) {
			return errElsewhere
		}
		return nil
	}}
	return &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
}

// isHere reports whether the address is loopback or one of an interface.
func isHere(a netip.Addr) bool {
	a = a.Unmap().WithZone("")
	if a.IsLoopback() {
		return true
	}
	addrs, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(addrs, func(own net.Addr) bool {
		p, err := netip.ParsePrefix(own.String())
		return err == nil && p.Addr().Unmap().WithZone("") == a
	})
}

func (s *serverCheck) reach(ctx context.Context) []doctor.Finding {
	began := s.now()
	resp, body, err := s.ask(ctx, http.MethodGet, s.server+"/readyz", "")
	if err != nil {
		mend := "posthorn serve"
		if !s.own && s.server != defaultServer {
			mend = "curl -v " + s.server + "/readyz"
		}
		return []doctor.Finding{doctor.Fault(mend, "%s cannot be reached: %v", s.server, err)}
	}
	s.up = true
	var found []doctor.Finding
	text, trouble, but := strings.Cut(strings.TrimSpace(body), "; but ")
	switch {
	case resp.StatusCode == http.StatusOK && text == "ready" && but:
		found = append(found, doctor.Fault("posthorn doctor where the service runs", "%s is ready, but %s", s.server, trouble))
	case resp.StatusCode == http.StatusOK && text == "ready":
		found = append(found, doctor.Fine("%s is ready", s.server))
	case resp.StatusCode == http.StatusServiceUnavailable:
		found = append(found, doctor.Fault("journalctl -u posthorn -n 50", "%s is not ready: %.200s", s.server, text))
	default:
		return append(found, doctor.Fault("posthorn doctor --server https://HOST", "%s answers /readyz with %d: it is not Posthorn", s.server, resp.StatusCode))
	}
	if resp.TLS != nil && !(s.own && s.cfg.TLSCert != "") { // else looked at with its file
		if c := resp.TLS.PeerCertificates[0]; doctor.EndsSoon(c, s.now()) {
			found = append(found, doctor.Fault("curl -v "+s.server+"/readyz (then renew it where TLS is ended)",
				"the certificate that %s presents ends on %s", s.server, posthorn.FormatTime(c.NotAfter)))
		}
	}
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return found
	}
	// The header has whole seconds, and may be older than the way back.
	skew := there.Add(500 * time.Millisecond).Sub(began.Add(s.now().Sub(began) / 2)).Round(time.Second)
	if skew.Abs() > maxSkew {
		return append(found, doctor.Fault("timedatectl set-ntp true", "its clock and this machine's differ by %s: signatures and tokens depend on it", config.FormatDuration(skew.Abs())))
	}
	return append(found, doctor.Fine("its clock is this machine's"))
}

// scopeProbes tell by their answer whether the token has a scope, and change
// nothing: what they ask for is not there, or not well formed.
var scopeProbes = []struct{ scope, method, path, body string }{
	{access.ScopeRead, http.MethodGet, "/endpoints?limit=1", ""},
	{access.ScopeWrite, http.MethodPatch, "/endpoints/none", "{}"},
	{access.ScopePublish, http.MethodPost, "/events", "{}"},
	{access.ScopeAdmin, http.MethodGet, "/tenants?limit=1", ""},
}

func (s *serverCheck) tryToken(ctx context.Context) []doctor.Finding {
	switch f, _ := errors.AsType[*fault](s.noTok); {
	case !s.up:
		return []doctor.Finding{doctor.Skip("the server cannot be asked")}
	case f != nil && f.message == noToken:
		return []doctor.Finding{doctor.Skip("there is none: POSTHORN_TOKEN or --token-file gives one to look at")}
	case s.noTok != nil:
		return []doctor.Finding{doctor.Fault("posthorn doctor --token-file FILE", "%s", strings.TrimSuffix(s.noTok.Error(), "."))}
	}
	var has []string
	for _, p := range scopeProbes {
		resp, _, err := s.ask(ctx, p.method, s.server+"/v2.3/webhooks"+p.path, p.body)
		switch {
		case errors.Is(err, errElsewhere):
			return []doctor.Finding{doctor.Skip("it is not sent to %s, which the settings name and which is not this machine; posthorn doctor --server %s sends it", s.server, s.server)}
		case err != nil:
			return []doctor.Finding{doctor.Fault("curl -v "+s.server+"/readyz", "the server cannot be asked: %v", err)}
		case resp.StatusCode == http.StatusUnauthorized:
			return []doctor.Finding{doctor.Fault("posthorn token create --tenant NAME", "it is not known to the server, was revoked or has expired")}
		case resp.StatusCode == http.StatusTooManyRequests:
			return []doctor.Finding{doctor.Fault("sleep 60; posthorn doctor", "too many bad tokens came from this address")}
		case resp.StatusCode != http.StatusForbidden:
			has = append(has, p.scope)
		case p.scope == access.ScopeRead && !strings.Contains(resp.Header.Get("WWW-Authenticate"), "insufficient_scope"):
			return []doctor.Finding{doctor.Fault("posthorn token create --tenant NAME", "it is a good one, but not for the tenant that is asked for")}
		}
	}
	if len(has) == 0 {
		return []doctor.Finding{doctor.Fault("posthorn token create --tenant NAME --scope webhooks:read", "it is known, but may do nothing")}
	}
	return []doctor.Finding{doctor.Fine("it may %s", strings.Join(has, ", "))}
}

func (s *serverCheck) reachOps(ctx context.Context) []doctor.Finding {
	switch {
	case !s.own || !s.up:
		return []doctor.Finding{doctor.Skip("only looked at where the service runs")}
	case s.cfg.OpsListen == "":
		return []doctor.Finding{doctor.Skip("they are off")}
	}
	ops := ownServer(&config.Config{Listen: s.cfg.OpsListen})
	resp, _, err := s.ask(ctx, http.MethodGet, ops+"/metrics", "")
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %d", resp.StatusCode)
	}
	if err != nil {
		return []doctor.Finding{doctor.Fault("posthorn config check", "%s/metrics cannot be read: %v", ops, err)}
	}
	return []doctor.Finding{doctor.Fine("%s/metrics answers", ops)}
}

// ask sends the token to the API only, and of a server that the settings name only to
// this machine: who names another one says so (--server, POSTHORN_SERVER, a context).
func (s *serverCheck) ask(ctx context.Context, method, target, body string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(body))
	if err != nil {
		return nil, "", errors.New("it is not a URL")
	}
	client := s.http
	if strings.Contains(target, "/v2.3/") {
		if s.own {
			client = s.here
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		if s.tenant != "" {
			req.Header.Set("Posthorn-Tenant", s.tenant)
		}
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := client.Do(req)
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // the rest repeats the URL
	}
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	return resp, string(b), err
}
