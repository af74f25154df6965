package access

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/store"
)

// Leeway is how far the provider's clock and ours may differ: so long a token is
// taken after its exp and before its nbf.
const Leeway = 30 * time.Second

// maxJWT bounds what is parsed of a stranger's.
const maxJWT = 16 << 10

// looksLikeJWT reports whether the text has the form of a signed one: three parts,
// the first a JSON object in base64url.
func looksLikeJWT(text string) bool {
	return strings.HasPrefix(text, "eyJ") && strings.Count(text, ".") == 2
}

// claims are what a JWT says.
type claims map[string]jsontext.Value

// get returns a claim by its name, or one that is nested by its path; nil for none.
func (c claims) get(name string) jsontext.Value {
	for at := c; ; {
		if v, ok := at[name]; ok {
			return v
		}
		first, rest, nested := strings.Cut(name, ".")
		if !nested {
			return nil
		}
		var in claims
		if json.Unmarshal(at[first], &in) != nil {
			return nil
		}
		at, name = in, rest
	}
}

// text is a claim that must be a string; "" for none.
func (c claims) text(name string) string {
	var s string
	if v := c.get(name); v == nil || json.Unmarshal(v, &s) != nil {
		return ""
	}
	return s
}

// list is a claim that is a list of strings, or one string that holds them.
func (c claims) list(name string, split func(string) []string) []string {
	v := c.get(name)
	var all []string
	var s string
	switch {
	case v == nil:
	case json.Unmarshal(v, &all) == nil:
	case json.Unmarshal(v, &s) == nil:
		return split(s)
	}
	return all
}

// moment is a claim that is a time (RFC 7519, NumericDate); ok is false for one that
// is no such thing, and the zero time stands for none.
func (c claims) moment(name string) (t time.Time, ok bool) {
	v := c[name]
	if v == nil {
		return t, true
	}
	var f float64
	if json.Unmarshal(v, &f) != nil || math.Abs(f) > 1<<40 {
		return t, false
	}
	return time.UnixMilli(int64(f * 1000)).UTC(), true
}

// refused says why a token is not taken.
type refused string

func (r refused) Error() string { return string(r) }

// notSigned is said of a token whose signature is nobody's here.
const notSigned = refused("The token is not signed by its issuer with an algorithm that is taken here, or its key is not the issuer's any more.")

// verify returns what a token says, and who says it. It adds to tried how many
// signatures it tried. What a token says of itself is judged first: that costs less. The
// errors are refused, unvouched, or the context's. It waits for nobody.
func (o *OIDC) verify(ctx context.Context, text string, now time.Time, tried *int) (claims, *provider, error) {
	if len(text) > maxJWT {
		return nil, nil, refused("The token is too long.")
	}
	c, err := unverified(text)
	if err != nil {
		return nil, nil, refused("The token is no well-formed JWT.")
	}
	p := o.providers[c.text("iss")]
	if p == nil {
		return nil, nil, refused("The token was issued by somebody whose tokens are not taken here (iss).")
	}
	audiences := c.list("aud", func(one string) []string { return []string{one} })
	if !slices.ContainsFunc(o.Audiences, func(a string) bool { return slices.Contains(audiences, a) }) {
		return nil, nil, refused("The token is meant for another service (aud).")
	}
	if err := checkTimes(c, now); err != nil {
		return nil, nil, err
	}
	if !p.ready() { // found out here, for the verifier hides why it fails
		if _, err := jose.ParseSigned(text, algorithms); err != nil {
			return nil, nil, notSigned
		}
		return nil, nil, unvouched{p, 0}
	}
	var t trial
	_, err = p.verifier(&t).Verify(ctx, text)
	*tried += t.signatures
	switch {
	case ctx.Err() != nil:
		return nil, nil, ctx.Err()
	case err != nil && t.unknown:
		return nil, nil, unvouched{p, t.had}
	case err != nil:
		return nil, nil, notSigned
	}
	return c, p, nil
}

// unverified reads a token's claims. A claim that stands twice is refused: two
// readers could see two tokens.
func unverified(text string) (c claims, err error) {
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(text, ".")[1])
	if err != nil {
		return nil, err
	}
	return c, json.Unmarshal(payload, &c)
}

func checkTimes(c claims, now time.Time) error {
	expires, ok1 := c.moment("exp")
	begins, ok2 := c.moment("nbf")
	issued, ok3 := c.moment("iat")
	switch {
	case !ok1 || !ok2 || !ok3:
		return refused("The token's times are not numbers (exp, nbf, iat).")
	case expires.IsZero():
		return refused("The token never ends; one that expires is needed (exp).")
	case !now.Before(expires.Add(Leeway)):
		return refused("The token has expired; ask the identity provider for a new one.")
	case now.Before(begins.Add(-Leeway)), now.Before(issued.Add(-Leeway)):
		return refused("The token is not valid yet (nbf, iat).")
	}
	return nil
}

// maxSubject bounds what of a subject is kept; OpenID Connect Core, section 2,
// allows 255 characters.
const maxSubject = 255

// subject is sub as it may stand in the audit.
func subject(sub string) string {
	clean := []rune(strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, sub))
	return string(clean[:min(len(clean), maxSubject)])
}

// principal makes a Principal of what a token says. Its tenant and its reference are
// still to be found.
func (o *OIDC) principal(c claims, p *provider) (Principal, error) {
	sub := subject(c.text("sub"))
	if sub == "" {
		return Principal{}, refused("The token names nobody (sub).")
	}
	expires, _ := c.moment("exp") // checked before
	return Principal{
		Scopes:    o.scopes(c),
		ExpiresAt: expires,
		Actor:     "jwt:" + sub + "@" + p.issuer,
	}, nil
}

// scopes are those of ours among what the token may do. admin belongs to the
// platform's tokens, which a JWT never is.
func (o *OIDC) scopes(c claims) []string {
	var mine []string
	for _, name := range c.list(o.ScopeClaim, strings.Fields) {
		if to, ok := o.ScopeMap[name]; ok {
			name = to
		}
		if slices.Contains(TenantScopes(), name) && !slices.Contains(mine, name) {
			mine = append(mine, name)
		}
	}
	return mine
}

// TenantScopes are those that a tenant's tokens can have.
func TenantScopes() []string { return []string{ScopeRead, ScopeWrite, ScopePublish} }

// lookupJWT finds who a JWT speaks for, in memory or else by checking it. What is
// remembered never outlives the token's own end. A token whose key is not known waits
// for the provider a moment, and in nobody's way: others of its address go on.
func (a *Authenticator) lookupJWT(ctx context.Context, text string, remote netip.Addr) (*entry, error) {
	hash := sha256.Sum256([]byte(text))
	if e, _ := a.recall(hash); e != nil && a.now().Before(e.principal.ExpiresAt) {
		return e, nil
	}
	tried := 0
	e, err := a.tryJWT(ctx, text, hash, remote, &tried)
	lacks, lacked := errors.AsType[unvouched](err)
	if lacked {
		if err = a.awaitKeys(ctx, lacks, remote); err == nil {
			e, err = a.tryJWT(ctx, text, hash, remote, &tried)
		}
	}
	if _, still := errors.AsType[unvouched](err); still || errors.Is(err, errUnsigned) {
		err = notSigned
	}
	_, bad := errors.AsType[refused](err)
	switch {
	case bad, lacked && posthorn.ErrorCode(err) == posthorn.Unavailable:
		a.strangers.failed(remote, readWork+time.Duration(tried)*signatureWork)
	case posthorn.ErrorCode(err) == posthorn.Forbidden:
		a.strangers.failed(remote, readWork+lookWork+time.Duration(tried)*signatureWork)
	}
	return e, err
}

// tryJWT checks a JWT with the keys that there are, when the address may have work
// done, and remembers it if it is good.
func (a *Authenticator) tryJWT(ctx context.Context, text string, hash [32]byte, remote netip.Addr, tried *int) (*entry, error) {
	leave, err := a.strangers.enter(ctx, remote)
	if err != nil {
		return nil, err
	}
	defer leave()
	now := a.now()
	e, era := a.recall(hash) // somebody may have brought the same meanwhile
	if e != nil && now.Before(e.principal.ExpiresAt) {
		return e, nil
	}
	if e, err = a.checkJWT(ctx, text, now, tried); err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.era == era && now.Before(e.principal.ExpiresAt) {
		a.remember(hash, e)
	}
	return e, nil
}

// awaitKeys waits until the provider has other keys than those that a token was tried
// with: until a second after their fetch began, and as one of few. The error is
// errUnsigned when there are no others, Unavailable when that is not known.
func (a *Authenticator) awaitKeys(ctx context.Context, lacks unvouched, remote netip.Addr) error {
	running, wait, err := lacks.provider.seek(lacks.had)
	if running == nil {
		return err
	}
	who := share.Address(remote)
	if a.strangers.waiting.Take(who, 1) != nil {
		return keysAway(fetchWait)
	}
	defer a.strangers.waiting.Give(who, 1)
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-running:
		_, _, err := lacks.provider.seek(lacks.had)
		return err
	case <-timer.C:
		return keysAway(fetchWait)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// checkJWT makes an entry of a JWT that is good. It adds to tried how many signatures
// it tried.
func (a *Authenticator) checkJWT(ctx context.Context, text string, now time.Time, tried *int) (*entry, error) {
	c, p, err := a.oidc.verify(ctx, text, now, tried)
	if err != nil {
		return nil, err
	}
	e := &entry{jwt: true}
	if e.principal, err = a.oidc.principal(c, p); err != nil {
		return nil, err
	}
	if e.principal.Tenant, err = a.tenantOf(ctx, c); err != nil {
		return nil, err
	}
	who := speaker(e.principal.Tenant.ID, p.issuer, c.text("sub"))
	e.principal.TokenRef = "jwt_" + hex.EncodeToString(who[:8])
	e.token = -1 - int64(binary.BigEndian.Uint64(who[8:])>>1) // below all rows of tokens
	return e, nil
}

// speaker tells those who JWTs speak for apart, in logs and memory, without naming
// them. A subject means one user within an issuer only (OpenID Connect Core, section 2),
// and who may choose subjects at an issuer may do so for one tenant: the same subject of
// two tenants is two speakers, and neither uses up what is the other's.
func speaker(tenant int64, issuer, subject string) [32]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%d\x00%s\x00%s", tenant, issuer, subject)) // an issuer is a URL, without NUL
}

// tenantOf finds the tenant that a token names. A token that is good but names none
// that is here is not a bad one: 403.
func (a *Authenticator) tenantOf(ctx context.Context, c claims) (posthorn.Tenant, error) {
	claim := a.oidc.TenantClaim
	name := c.text(claim)
	switch {
	case c.get(claim) == nil:
		return posthorn.Tenant{}, posthorn.Errorf(posthorn.Forbidden, "The token names no tenant: its claim %s is missing.", claim)
	case !posthorn.ValidTenantName(name):
		return posthorn.Tenant{}, posthorn.Errorf(posthorn.Forbidden, "The token's claim %s is not the name of a tenant.", claim)
	}
	t, err := a.store.TenantByName(ctx, name)
	if errors.Is(err, store.ErrNotFound) {
		return t, posthorn.Errorf(posthorn.Forbidden, "The tenant that the token names is not known here.")
	}
	if err != nil {
		return t, fmt.Errorf("access: %w", unavailable(err))
	}
	return t, nil
}

// ForgetJWTs has all JWTs checked again.
func (a *Authenticator) ForgetJWTs() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era++
	for hash, e := range a.known {
		if e.jwt {
			a.forget(hash, e)
		}
	}
}
