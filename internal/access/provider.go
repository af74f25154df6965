package access

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"github.com/posthorn/posthorn"
)

// When keys are fetched. A token with an unknown key makes for a fetch, for
// providers change keys at any time; but not for more than one in fetchPause, or
// whoever makes up key ids would have us hammer the provider.
const (
	fetchEvery = 15 * time.Minute
	fetchPause = 10 * time.Second
	fetchRetry = time.Second // after a failure, doubled up to a minute
	// fetchWait is how long after the beginning of a fetch tokens wait for it.
	fetchWait = time.Second
	maxKeys   = 100
)

// provider is an issuer and its keys.
type provider struct {
	issuer string
	client *http.Client
	now    func() time.Time
	log    *slog.Logger
	life   context.Context // of fetches
	end    context.CancelFunc

	placed   bool          // jwksURL is the operator's: no discovery
	patience time.Duration // fetchWait, or longer in tests

	mu       sync.Mutex
	changed  func()            // set by run
	jwksURL  string            // empty until discovery
	keys     []jose.JSONWebKey // as they were fetched last; nil for never
	brought  int               // fetches that brought keys
	fetched  time.Time         // when a fetch last began
	fetching chan struct{}     // closed when the running fetch ends; nil for none
	failed   error             // why the last fetch brought nothing
}

func newProvider(issuer, jwksURL string, client *http.Client, now func() time.Time, log *slog.Logger) *provider {
	p := &provider{issuer: issuer, jwksURL: jwksURL, placed: jwksURL != "", patience: fetchWait, client: client, now: now, log: log}
	p.life, p.end = context.WithCancel(context.Background())
	return p
}

// verifier checks tokens against the provider's keys, and writes into t what it did.
func (p *provider) verifier(t *trial) *oidc.IDTokenVerifier {
	return oidc.NewVerifier(p.issuer, keySet{p, t}, &oidc.Config{
		SupportedSigningAlgs: algorithmNames(),
		SkipClientIDCheck:    true, // there may be several audiences: see OIDC.verify
		SkipExpiryCheck:      true, // with another leeway: see checkTimes
		Now:                  p.now,
	})
}

// algorithms are all that sign with a private key. Neither none nor HS256, whose
// key would be the public one, is among them.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

func algorithmNames() (names []string) {
	for _, a := range algorithms {
		names = append(names, string(a))
	}
	return names
}

// errUnsigned: no key of the provider made the signature.
var errUnsigned = errors.New("access: the signature is not the provider's")

// unvouched: none of the keys that the provider's fetch number had brought vouches for
// a token, and it names none of them. Those of a later fetch may.
type unvouched struct {
	provider *provider
	had      int
}

func (unvouched) Error() string { return "access: the token's key is not known yet" }

// trial is what was done to check a token.
type trial struct {
	signatures int // that were tried
	// unknown says that the token names none of the keys that the fetch number had
	// brought.
	unknown bool
	had     int
}

// keySet is a provider's keys as [oidc.KeySet].
type keySet struct {
	*provider
	trial *trial
}

// VerifySignature implements [oidc.KeySet]. It waits for nothing: a key that is known
// and did not sign is no reason to ask for others, and who lacks one asks outside.
func (set keySet) VerifySignature(_ context.Context, text string) ([]byte, error) {
	jws, err := jose.ParseSigned(text, algorithms)
	if err != nil {
		return nil, err
	}
	keys, fetch := set.current()
	known, payload := set.verify(jws, keys)
	if payload != nil {
		return payload, nil
	}
	set.trial.unknown, set.trial.had = !known, fetch
	return nil, errUnsigned
}

// verify returns the payload that one of the keys signed. known reports whether
// the key that the token names is there.
func (set keySet) verify(jws *jose.JSONWebSignature, keys []jose.JSONWebKey) (known bool, payload []byte) {
	h := jws.Signatures[0].Header
	for i := range keys {
		k := &keys[i]
		if h.KeyID != "" && k.KeyID != h.KeyID {
			continue
		}
		known = known || h.KeyID != ""
		if k.Algorithm != "" && k.Algorithm != h.Algorithm {
			continue // RFC 7517, section 4.4: the key is for that algorithm
		}
		set.trial.signatures++
		if payload, err := jws.Verify(k.Key); err == nil {
			return true, payload
		}
	}
	return known, nil
}

// current returns the keys, and the number of the fetch that brought them.
func (p *provider) current() ([]jose.JSONWebKey, int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys, p.brought
}

func (p *provider) ready() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.keys != nil
}

// fetch gets the keys and returns why that failed; they stay as they were then.
func (p *provider) fetch(ctx context.Context) error {
	p.mu.Lock()
	running := p.begin(true)
	p.mu.Unlock()
	select {
	case <-running:
	case <-ctx.Done():
		return ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// begin returns a channel that is closed when the fetch that is under way ends,
// and begins one if there is none. It returns nil when one is not due: a fetch that
// somebody insists on always is. A fetch is for all that wait for it, so it does
// not end with the request that began it. It is called with mu held.
func (p *provider) begin(insist bool) <-chan struct{} {
	now := p.now()
	switch {
	case p.fetching != nil:
		return p.fetching
	case !insist && !p.fetched.IsZero() && !now.Before(p.fetched) && now.Sub(p.fetched) < fetchPause:
		return nil
	}
	p.fetching, p.fetched = make(chan struct{}), now
	from := p.jwksURL
	go func() {
		keys, from, err := p.get(p.life, from)
		p.take(keys, from, err)
	}()
	return p.fetching
}

// seek looks for keys other than those of the fetch number had. No error says that
// there are some, or that there will be when running is closed, which is worth waiting
// for until so long from now. errUnsigned says that there are none; another error that
// it cannot be said.
func (p *provider) seek(had int) (running <-chan struct{}, wait time.Duration, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.brought != had {
		return nil, 0, nil
	}
	running = p.begin(false)
	since := max(0, p.now().Sub(p.fetched))
	switch {
	case running != nil && since < p.patience:
		return running, p.patience - since, nil
	case running != nil:
		return nil, 0, keysAway(fetchWait)
	case p.failed != nil:
		return nil, 0, keysAway(max(fetchPause-since, time.Second))
	}
	return nil, 0, errUnsigned
}

// keysAway is the answer to a token that cannot be judged: whoever has a good one
// tries again.
func keysAway(retry time.Duration) error {
	return &posthorn.Error{Code: posthorn.Unavailable, RetryAfter: retry,
		Message: "The keys of the token's identity provider cannot be fetched now; try again."}
}

// take ends a fetch with what it brought.
func (p *provider) take(keys []jose.JSONWebKey, from string, err error) {
	p.mu.Lock()
	was := p.failed
	p.failed = err
	lost := false
	if err == nil {
		lost = slices.ContainsFunc(p.keys, func(k jose.JSONWebKey) bool { return !holds(keys, &k) })
		p.keys, p.jwksURL, p.brought = keys, from, p.brought+1
	} else if !p.placed {
		p.jwksURL = "" // the keys may have moved
	}
	changed, done := p.changed, p.fetching
	p.mu.Unlock()
	if lost && changed != nil {
		changed() // before anybody is told that the fetch is done
	}
	p.mu.Lock()
	p.fetching = nil
	p.mu.Unlock()
	close(done)
	switch {
	case p.life.Err() != nil:
	case err != nil && was == nil:
		p.log.Warn("the keys of an identity provider cannot be fetched; trying again", "issuer", p.issuer, "err", err)
	case err == nil && was != nil:
		p.log.Info("the keys of an identity provider are fetched again", "issuer", p.issuer, "keys", len(keys))
	}
}

// get asks the provider: where its keys are, if from does not say that, and for
// them.
func (p *provider) get(ctx context.Context, from string) ([]jose.JSONWebKey, string, error) {
	if from == "" {
		d, err := oidc.NewProvider(oidc.ClientContext(ctx, p.client), p.issuer)
		if err != nil {
			return nil, "", fmt.Errorf("discovery of %s: %s", p.issuer, brief(err))
		}
		var doc struct {
			JWKSURL string `json:"jwks_uri"`
		}
		if err := d.Claims(&doc); err != nil {
			return nil, "", fmt.Errorf("discovery of %s: %s", p.issuer, brief(err))
		}
		if err := CheckProviderURL(doc.JWKSURL); err != nil {
			return nil, "", fmt.Errorf("discovery of %s names no jwks_uri that may be used: %w", p.issuer, err)
		}
		from = doc.JWKSURL
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, "", fmt.Errorf("the keys of %s: %s", p.issuer, brief(err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("the keys of %s: %s answers %d", p.issuer, from, resp.StatusCode)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, "", fmt.Errorf("the keys of %s: %s", p.issuer, brief(err))
	}
	keys, err := readKeys(body)
	if err != nil {
		return nil, "", fmt.Errorf("the keys of %s: %w", p.issuer, err)
	}
	return keys, from, nil
}

// brief keeps what a provider answered short where it is quoted.
func brief(err error) string {
	s := []rune(strings.ToValidUTF8(err.Error(), "\uFFFD"))
	if len(s) > 300 {
		s = append(s[:300], '…')
	}
	return string(s)
}

// run keeps the keys fresh until ctx ends. What it fetched once goes on to be used
// while the provider is away.
func (p *provider) run(ctx context.Context, onChange func()) {
	defer p.end()
	p.mu.Lock()
	p.changed = onChange
	p.mu.Unlock()
	onChange() // for keys that were lost before anybody was told
	retry := fetchRetry
	for {
		wait := fetchEvery
		if err := p.fetch(ctx); err != nil {
			wait, retry = retry, min(2*retry, time.Minute)
		} else {
			retry = fetchRetry
		}
		wait += rand.N(wait / 5) // nodes that start together shall not ask together
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}
