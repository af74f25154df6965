package access_test

import (
	"context"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

var (
	noon  = time.Date(2026, 4, 29, 12, 0, 0, 0, time.UTC)
	local = netip.MustParseAddr("127.0.0.1")
)

// tokens is a store in memory that counts look-ups and can be made to fail.
type tokens struct {
	mu      sync.Mutex
	byHash  map[[32]byte]store.Token
	tenants map[int64]posthorn.Tenant
	touched map[int64]time.Time
	lookups int
	err     error
	onFound func() // called between the look-up and its answer
}

func (s *tokens) TokenByHash(_ context.Context, hash [32]byte) (store.Token, error) {
	s.mu.Lock()
	s.lookups++
	t, found := s.byHash[hash]
	err, onFound := s.err, s.onFound
	s.mu.Unlock()
	if onFound != nil {
		onFound()
	}
	switch {
	case err != nil:
		return store.Token{}, err
	case !found:
		return store.Token{}, store.ErrNotFound
	}
	return t, nil
}

func (s *tokens) TenantByID(_ context.Context, id int64) (posthorn.Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, found := s.tenants[id]
	if !found {
		return posthorn.Tenant{}, store.ErrNotFound
	}
	return t, nil
}

func (s *tokens) TenantByName(_ context.Context, name string) (posthorn.Tenant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups++
	for _, t := range s.tenants {
		if t.Name == name {
			return t, s.err
		}
	}
	return posthorn.Tenant{}, store.ErrNotFound
}

func (s *tokens) TouchTokens(_ context.Context, used map[int64]time.Time) error {
	if s.err != nil {
		return s.err
	}
	for id, at := range used {
		s.touched[id] = at
	}
	return nil
}

type world struct {
	*access.Authenticator
	store *tokens
	now   time.Time
}

func newWorld() *world {
	w := &world{now: noon, store: &tokens{
		byHash:  map[[32]byte]store.Token{},
		tenants: map[int64]posthorn.Tenant{7: {ID: 7, Name: "acme"}},
		touched: map[int64]time.Time{},
	}}
	w.Authenticator = access.New(access.Config{Store: w.store, Now: func() time.Time { return w.now }})
	return w
}

func (w *world) token(t store.Token) (text string) {
	text, t.Hash = access.NewToken()
	w.store.byHash[t.Hash] = t
	return text
}

func (w *world) try(t *testing.T, from netip.Addr, header ...string) (*access.Principal, *posthorn.Error) {
	t.Helper()
	p, err := w.Authenticate(t.Context(), header, from)
	if err == nil {
		return p, nil
	}
	fault, ok := errors.AsType[*posthorn.Error](err)
	if !ok {
		t.Fatalf("Authenticate = %v, want a *posthorn.Error", err)
	}
	return p, fault
}

func TestTokenNamesItsTenantAndScopes(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 3, Ref: "tok_A", Tenant: 7, Scopes: []string{access.ScopeRead}})
	want := &access.Principal{
		Tenant: posthorn.Tenant{ID: 7, Name: "acme"}, TokenRef: "tok_A",
		Scopes: []string{"webhooks:read"}, Actor: "token:tok_A",
	}
	for _, header := range []string{"Bearer " + text, "bearer " + text, "BEARER  " + text + " "} {
		got, fault := w.try(t, local, header)
		if fault != nil {
			t.Fatalf("%q: %v", header[:8], fault)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: principal (-want +got):\n%s", header[:8], diff)
		}
		if !got.Has(access.ScopeRead) || got.Has(access.ScopeWrite) {
			t.Error("the principal must have the scope that it was given, and no other")
		}
	}
	if w.store.lookups != 1 {
		t.Errorf("the store was asked %d times, want once", w.store.lookups)
	}
}

func TestPlatformTokenBelongsToNoTenant(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 4, Ref: "tok_P", Scopes: access.Scopes()})
	p, fault := w.try(t, local, "Bearer "+text)
	if fault != nil || !p.Platform || p.Tenant.ID != 0 || !p.Has(access.ScopeAdmin) {
		t.Errorf("principal = %+v, %v", p, fault)
	}
}

func TestBadCredentialsAreUnauthorized(t *testing.T) {
	w := newWorld()
	good := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	expired := w.token(store.Token{ID: 2, Ref: "tok_B", Tenant: 7, ExpiresAt: noon})
	orphan := w.token(store.Token{ID: 3, Ref: "tok_C", Tenant: 99})
	unknown, _ := access.NewToken()
	for name, c := range map[string]struct {
		header []string
		want   string
	}{
		"two headers":    {[]string{"Bearer " + good, "Bearer " + good}, "more than one"},
		"basic":          {[]string{"Basic dXNlcjpwYXNz"}, `"Bearer"`},
		"empty":          {[]string{""}, `"Bearer"`},
		"no token":       {[]string{"Bearer"}, "copied whole"},
		"bare token":     {[]string{good}, `"Bearer"`},
		"mistyped":       {[]string{"Bearer " + flip(good)}, "copied whole"},
		"unknown":        {[]string{"Bearer " + unknown}, "unknown or was revoked"},
		"expired":        {[]string{"Bearer " + expired}, "expired"},
		"tenant deleted": {[]string{"Bearer " + orphan}, "unknown or was revoked"},
	} {
		t.Run(name, func(t *testing.T) {
			_, fault := w.try(t, local, c.header...)
			if fault == nil || fault.Code != posthorn.Unauthorized || !strings.Contains(fault.Message, c.want) {
				t.Errorf("got %v, want Unauthorized with %q", fault, c.want)
			}
			if fault != nil && strings.Contains(fault.Message, good[4:]) {
				t.Error("the message shows the token")
			}
		})
	}
	if _, err := w.Authenticate(t.Context(), nil, local); !errors.Is(err, access.ErrNoToken) {
		t.Errorf("without header: %v, want ErrNoToken", err)
	}
}

func TestRevocationIsFeltAtOnce(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	w.try(t, local, "Bearer "+text)
	clear(w.store.byHash)
	w.Notice(store.Notice{Kind: store.NoticeToken})
	if _, fault := w.try(t, local, "Bearer "+text); fault == nil {
		t.Error("a revoked token was accepted")
	}
}

// A look-up that read the row before it was deleted must not put the token back
// after the deletion was noticed.
func TestRevocationDuringLookupIsFelt(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	w.store.onFound = func() {
		clear(w.store.byHash)
		w.Notice(store.Notice{Kind: store.NoticeToken})
	}
	w.try(t, local, "Bearer "+text) // began before the deletion; either answer is right
	w.store.onFound = nil
	if _, fault := w.try(t, local, "Bearer "+text); fault == nil {
		t.Error("a revoked token was accepted")
	}
}

func TestSuspensionReachesThePrincipal(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	other := w.token(store.Token{ID: 2, Ref: "tok_B", Tenant: 8})
	w.store.tenants[8] = posthorn.Tenant{ID: 8, Name: "other"}
	w.try(t, local, "Bearer "+text)
	w.try(t, local, "Bearer "+other)
	w.store.tenants[7] = posthorn.Tenant{ID: 7, Name: "acme", SuspendedAt: noon}
	w.Notice(store.Notice{Kind: store.NoticeTenant, Tenant: 7})
	if p, fault := w.try(t, local, "Bearer "+text); fault != nil || !p.Tenant.Suspended() {
		t.Errorf("principal = %+v, %v; want a suspended tenant", p, fault)
	}
	before := w.store.lookups
	w.try(t, local, "Bearer "+other)
	w.Notice(store.Notice{Kind: store.NoticeEndpoint, Tenant: 8})
	w.try(t, local, "Bearer "+other)
	if w.store.lookups != before {
		t.Error("another tenant's change made the store be asked again")
	}
}

func TestTwentyFailuresAMinute(t *testing.T) {
	w := newWorld()
	good := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	other := netip.MustParseAddr("192.0.2.1")
	for i := range 20 {
		if _, fault := w.try(t, local, "Bearer pht_wrong"); fault.Code != posthorn.Unauthorized {
			t.Fatalf("failure %d: %v, want Unauthorized", i+1, fault)
		}
	}
	w.now = noon.Add(20 * time.Second)
	_, fault := w.try(t, local, "Bearer pht_wrong")
	if fault.Code != posthorn.RateLimited || fault.RetryAfter != 40*time.Second {
		t.Errorf("failure 21: %v after %v, want RateLimited for 40s", fault, fault.RetryAfter)
	}
	if _, fault := w.try(t, other, "Bearer pht_wrong"); fault.Code != posthorn.Unauthorized {
		t.Errorf("another address: %v, want Unauthorized", fault)
	}
	if _, fault := w.try(t, local, "Bearer "+good); fault != nil {
		t.Errorf("a valid token is refused for the failures of others: %v", fault)
	}
	if _, err := w.Authenticate(t.Context(), nil, local); !errors.Is(err, access.ErrNoToken) {
		t.Errorf("no token at all is no failed guess: %v", err)
	}
	w.now = noon.Add(time.Minute)
	if _, fault := w.try(t, local, "Bearer pht_wrong"); fault.Code != posthorn.Unauthorized {
		t.Errorf("a minute later: %v, want Unauthorized", fault)
	}
}

func TestIPv6SubscriberIsOneAddress(t *testing.T) {
	w := newWorld()
	prefix := netip.MustParseAddr("2001:db8::").As16()
	for i := range 21 {
		addr := prefix
		binary.BigEndian.PutUint64(addr[8:], uint64(i))
		_, fault := w.try(t, netip.AddrFrom16(addr), "Bearer pht_wrong")
		if limited := fault.Code == posthorn.RateLimited; limited != (i == 20) {
			t.Fatalf("failure %d: %v", i+1, fault)
		}
	}
	mapped := netip.MustParseAddr("::ffff:192.0.2.7")
	for range 20 {
		w.try(t, mapped, "Bearer pht_wrong")
	}
	if _, fault := w.try(t, mapped.Unmap(), "Bearer pht_wrong"); fault.Code != posthorn.RateLimited {
		t.Errorf("an IPv4 address in IPv6 form counts apart: %v", fault)
	}
}

func TestStoreOutageIsNotTheCallersFault(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})
	w.store.err = store.ErrUnavailable
	for range 30 {
		if _, fault := w.try(t, local, "Bearer "+text); fault.Code != posthorn.Unavailable || fault.RetryAfter == 0 {
			t.Fatalf("got %v, want Unavailable with a time", fault)
		}
	}
	w.store.err = nil
	if _, fault := w.try(t, local, "Bearer "+text); fault != nil {
		t.Error(fault)
	}
}

func TestLastUseIsFlushed(t *testing.T) {
	w := newWorld()
	text := w.token(store.Token{ID: 5, Ref: "tok_A", Tenant: 7})
	use := func(after time.Duration) {
		w.now = noon.Add(after)
		w.try(t, local, "Bearer "+text)
	}
	expect := func(after time.Duration) {
		t.Helper()
		w.Flush(t.Context())
		if got := w.store.touched[5]; !got.Equal(noon.Add(after)) {
			t.Errorf("last use = %v, want %v", got, noon.Add(after))
		}
	}
	use(0)
	use(time.Second)
	expect(time.Second)

	use(2 * time.Second)
	w.Notice(store.Notice{Kind: store.NoticeAll}) // what was let go is flushed too
	expect(2 * time.Second)

	use(3 * time.Second)
	w.store.err = store.ErrUnavailable
	if err := w.Flush(t.Context()); err == nil {
		t.Error("Flush hides the store's error")
	}
	w.store.err = nil
	expect(3 * time.Second)

	clear(w.store.touched)
	if w.Flush(t.Context()); len(w.store.touched) != 0 {
		t.Error("an old use was written again")
	}
}

func TestTokensAreDistinctAndRecognised(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		text, hash := access.NewToken()
		if len(text) != 53 || !strings.HasPrefix(text, "pht_") || seen[text] {
			t.Fatalf("token %q", text)
		}
		seen[text] = true
		if got, ok := access.HashToken(text); !ok || got != hash {
			t.Fatalf("HashToken(%q) = %x, %v, want %x", text, got, ok, hash)
		}
	}
}

func FuzzHashTokenRefusesTypos(f *testing.F) {
	f.Add("pht_", uint8(3))
	f.Fuzz(func(t *testing.T, s string, at uint8) {
		if _, ok := access.HashToken(s); ok {
			t.Skip("a valid token")
		}
		text, _ := access.NewToken()
		b := []byte(text)
		i := int(at) % len(b)
		if b[i] ^= 1; string(b) == text {
			t.Fatal("nothing changed")
		}
		if _, ok := access.HashToken(string(b)); ok {
			t.Errorf("%q passes for %q", b, text)
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	w := newWorld()
	header := []string{"Bearer " + w.token(store.Token{ID: 1, Ref: "tok_A", Tenant: 7})}
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Authenticate(ctx, header, local); err != nil {
			b.Fatal(err)
		}
	}
}

func flip(token string) string {
	b := []byte(token)
	b[10], b[11] = b[11], b[10]
	if b[10] == b[11] {
		b[10] ^= 1
	}
	return string(b)
}
