// Package access tells who is asking: it makes tokens, and turns the
// Authorization header of a request into a [Principal]. What a principal may do
// is the API's question; see [Principal.Has].
//
// Tokens are opaque ones of ours, or JWTs of the operator's identity providers: see
// [OIDC].
//
// A token is known by the SHA-256 of its text. Principals are kept in memory, so
// that a request costs no look into the store, and let go the moment the store
// tells of a deleted token or a changed tenant.
package access

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// Scopes of tokens. None implies another.
const (
	ScopeRead    = "webhooks:read"
	ScopeWrite   = "webhooks:write"
	ScopePublish = "events:publish"
	ScopeAdmin   = "admin"
)

// Scopes returns all scopes, in the order in which they are shown.
func Scopes() []string { return []string{ScopeRead, ScopeWrite, ScopePublish, ScopeAdmin} }

// DefaultScopes is what a token has that was made without a choice.
func DefaultScopes() []string { return []string{ScopeRead, ScopeWrite} }

// Principal is who asks. It is shared between requests: nobody changes it.
type Principal struct {
	// Platform principals belong to no tenant and name one per request.
	Platform bool
	// Tenant is the zero Tenant for a platform principal. A suspended tenant may
	// still read; publishing refuses it.
	Tenant posthorn.Tenant
	// TokenRef tells principals apart: the token's id, or "jwt_" and a hash of who
	// the JWT is about: tenant, issuer and subject.
	TokenRef string
	Scopes   []string
	// ExpiresAt is zero for never.
	ExpiresAt time.Time
	// Actor is how the audit trail names the principal: "token:tok_…" or
	// "jwt:SUBJECT@ISSUER".
	Actor string
}

// Has reports whether the principal was given the scope.
func (p *Principal) Has(scope string) bool { return slices.Contains(p.Scopes, scope) }

// ErrNoToken is returned for a request without Authorization header: its answer
// is a 401 whose WWW-Authenticate names no error (RFC 6750, section 3.1). It is
// a *posthorn.Error with the code Unauthorized.
var ErrNoToken error = posthorn.Errorf(posthorn.Unauthorized,
	"The request has no token; send it as \"Authorization: Bearer pht_…\".")

// Store is what the authenticator needs of the store.
type Store interface {
	TokenByHash(ctx context.Context, hash [32]byte) (store.Token, error)
	TenantByID(ctx context.Context, id int64) (posthorn.Tenant, error)
	TenantByName(ctx context.Context, name string) (posthorn.Tenant, error)
	TouchTokens(ctx context.Context, used map[int64]time.Time) error
}

// Config holds what an Authenticator works with.
type Config struct {
	Store Store
	Now   func() time.Time
	// RatePerSecond bounds the requests of a token; 0 for no limit.
	RatePerSecond float64
	// OIDC takes JWTs; nil for none.
	OIDC *OIDC
}

// How much is remembered.
const (
	maxCached = 10_000
	// idleAfter is how long an unused principal stays in memory.
	idleAfter = time.Hour
)

// Authenticator recognises tokens. It is safe for concurrent use.
type Authenticator struct {
	store     Store
	now       func() time.Time
	oidc      *OIDC
	failures  failures
	strangers *strangers
	rates     *rates // nil for no limit

	mu    sync.RWMutex
	known map[[32]byte]*entry
	// era counts what Notice let go, so that a look-up that began before does not
	// put an old answer back.
	era uint64
	// unflushed are uses of entries that are known no more.
	unflushed map[int64]time.Time
}

type entry struct {
	principal Principal
	token     int64 // the row's id, or for a JWT a number of its own
	jwt       bool
	used      atomic.Int64 // Unix milliseconds of the last use
	flushed   atomic.Int64 // the value of used that the store has
}

// New returns an Authenticator that knows nobody yet.
func New(c Config) *Authenticator {
	return &Authenticator{
		store: c.Store, now: c.Now, oidc: c.OIDC,
		failures:  failures{by: make(map[netip.Addr]window)},
		strangers: newStrangers(),
		rates:     newRates(c.RatePerSecond),
		known:     make(map[[32]byte]*entry),
		unflushed: make(map[int64]time.Time),
	}
}

// Authenticate returns who sent the values of the Authorization header. The
// errors are *posthorn.Error: Unauthorized ([ErrNoToken] when there is no
// header), Forbidden for a JWT that names no tenant of ours, RateLimited once the
// address has failed 20 times within a minute or the token is used more often than
// it may be, Unavailable when the store cannot be asked, or an identity provider not
// soon enough whether the key of a JWT is its own. A valid token is never refused for the failures of others
// behind the same address; one that is not known yet may wait for them: see strangers.
func (a *Authenticator) Authenticate(ctx context.Context, authorization []string, remote netip.Addr) (*Principal, error) {
	switch len(authorization) {
	case 0:
		return nil, ErrNoToken
	case 1:
	default:
		return nil, a.refuse(remote, "The request has more than one Authorization header; send one.")
	}
	e, err := a.who(ctx, authorization[0], remote)
	if why, is := errors.AsType[refused](err); is {
		return nil, a.refuse(remote, string(why))
	}
	if err != nil {
		return nil, err
	}
	now := a.now()
	e.used.Store(now.UnixMilli())
	if wait := a.rates.take(e.token, now); wait > 0 {
		return nil, &posthorn.Error{
			Code:       posthorn.RateLimited,
			Message:    fmt.Sprintf("The token sends more than %v requests a second; slow down.", a.rates.perSecond),
			RetryAfter: wait,
		}
	}
	return &e.principal, nil
}

// Again tells for whom a token speaks now that was let in before, while its request is
// still being answered. It is no request of its own: it counts no use, takes nothing of
// the token's rate, and is no failed attempt of its address. The error is Unauthorized
// when the token was revoked or has expired, else as of [Authenticator.Authenticate].
func (a *Authenticator) Again(ctx context.Context, authorization []string) (*Principal, error) {
	if len(authorization) != 1 {
		return nil, ErrNoToken
	}
	e, err := a.who(ctx, authorization[0], netip.Addr{})
	if why, is := errors.AsType[refused](err); is {
		return nil, &posthorn.Error{Code: posthorn.Unauthorized, Message: string(why)}
	}
	if err != nil {
		return nil, err
	}
	return &e.principal, nil
}

// who finds whom the value of an Authorization header speaks for; a refused error if
// for nobody.
func (a *Authenticator) who(ctx context.Context, authorization string, remote netip.Addr) (*entry, error) {
	scheme, text, _ := strings.Cut(strings.TrimSpace(authorization), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return nil, refused("The Authorization header must be \"Bearer\" and a token.")
	}
	text = strings.TrimSpace(text)
	if a.oidc != nil && looksLikeJWT(text) {
		return a.lookupJWT(ctx, text, remote)
	}
	hash, ok := HashToken(text)
	if !ok {
		return nil, refused("The token is not one of Posthorn's: check that it was copied whole, pht_ included.")
	}
	e, err := a.lookup(ctx, hash, remote)
	if errors.Is(err, store.ErrNotFound) {
		return nil, refused("The token is unknown or was revoked.")
	}
	if err != nil {
		return nil, err
	}
	if t := e.principal.ExpiresAt; !t.IsZero() && !a.now().Before(t) {
		return nil, refused("The token has expired; ask for a new one.")
	}
	return e, nil
}

func (a *Authenticator) refuse(remote netip.Addr, why string) error {
	if wait := a.failures.add(remote, a.now()); wait > 0 {
		return &posthorn.Error{
			Code:       posthorn.RateLimited,
			Message:    "Too many requests with a bad token came from this address; mend the token and wait.",
			RetryAfter: wait,
		}
	}
	return &posthorn.Error{Code: posthorn.Unauthorized, Message: why}
}

// lookup finds the token in memory or else in the store.
func (a *Authenticator) lookup(ctx context.Context, hash [32]byte, remote netip.Addr) (*entry, error) {
	if e, _ := a.recall(hash); e != nil {
		return e, nil
	}
	if a.strangers.isUnknown(hash) {
		return nil, store.ErrNotFound
	}
	leave, err := a.strangers.enter(ctx, remote)
	if err != nil {
		return nil, err
	}
	defer leave()
	e, era := a.recall(hash) // somebody may have brought the same meanwhile
	if e != nil {
		return e, nil
	}
	if e, err = a.find(ctx, hash); err != nil {
		if errors.Is(err, store.ErrNotFound) {
			a.strangers.failed(remote, lookWork)
			a.rememberUnknown(hash, era)
		}
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.era == era {
		a.remember(hash, e)
	}
	return e, nil
}

// recall returns what is known of a token, nil for nothing, and the era of that.
func (a *Authenticator) recall(hash [32]byte) (*entry, uint64) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.known[hash], a.era
}

// rememberUnknown notes that the store has no such token, unless that may have changed
// since the era.
func (a *Authenticator) rememberUnknown(hash [32]byte, era uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.era == era {
		a.strangers.remember(hash)
	}
}

// find asks the store for a token. The error is store.ErrNotFound for one that is not
// there.
func (a *Authenticator) find(ctx context.Context, hash [32]byte) (*entry, error) {
	token, err := a.store.TokenByHash(ctx, hash)
	if err != nil {
		return nil, unavailable(err)
	}
	// The store found the row by its hash; this holds even if it compares badly.
	if subtle.ConstantTimeCompare(token.Hash[:], hash[:]) != 1 {
		return nil, store.ErrNotFound
	}
	e := &entry{token: token.ID, principal: Principal{
		Platform: token.Tenant == 0, TokenRef: token.Ref, Scopes: token.Scopes,
		ExpiresAt: token.ExpiresAt, Actor: "token:" + token.Ref,
	}}
	if token.Tenant != 0 {
		if e.principal.Tenant, err = a.store.TenantByID(ctx, token.Tenant); err != nil {
			return nil, unavailable(err)
		}
	}
	return e, nil
}

// unavailable keeps ErrNotFound and the caller's own end as they are.
func unavailable(err error) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrClosed) || errors.Is(err, store.ErrOverloaded) {
		return &posthorn.Error{Code: posthorn.Unavailable, Message: "Tokens cannot be checked now; try again.", RetryAfter: time.Second}
	}
	return err
}

// remember makes room where there is none: any other entry will do, for its
// token is found again in the store. It is called with mu held.
func (a *Authenticator) remember(hash [32]byte, e *entry) {
	if len(a.known) >= maxCached {
		for other, old := range a.known {
			a.forget(other, old)
			break
		}
	}
	if known := a.known[hash]; known != nil {
		a.forget(hash, known)
	}
	a.known[hash] = e
}

// forget is called with mu held.
func (a *Authenticator) forget(hash [32]byte, e *entry) {
	if used := e.used.Load(); used != e.flushed.Load() && !e.jwt {
		a.unflushed[e.token] = time.UnixMilli(used).UTC()
	}
	delete(a.known, hash)
}

// Notice lets go of what a change may have made untrue. It takes effect before
// it returns: a token whose deletion was answered is refused from then on.
func (a *Authenticator) Notice(n store.Notice) {
	switch n.Kind {
	case store.NoticeAll, store.NoticeToken, store.NoticeTenant:
	default:
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.era++
	a.strangers.forget()
	for hash, e := range a.known {
		if n.Kind != store.NoticeTenant || e.principal.Tenant.ID == n.Tenant {
			a.forget(hash, e)
		}
	}
}
