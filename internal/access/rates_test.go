package access_test

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
	"github.com/posthorn/posthorn/internal/tally"
)

// Each token has a bucket of its own: what one sends beyond its rate is refused
// with the time to wait, and nobody else notices.
func TestATokensRateIsBounded(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "posthorn.db"), sqlite.Serve)
	now := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	auth := access.New(access.Config{Store: s, Now: func() time.Time { return now }, RatePerSecond: 5})
	var tokens [2]string
	for i := range tokens {
		text, hash := access.NewToken()
		if _, err := s.CreateToken(t.Context(), store.Change{Actor: "test", At: now}, store.Token{
			Ref: posthorn.NewRef(posthorn.TokenPrefix, now), Hash: hash, Scopes: access.Scopes(), CreatedAt: now,
		}); err != nil {
			t.Fatal(err)
		}
		tokens[i] = "Bearer " + text
	}
	tried := 0
	use := func(token string) error {
		tried++
		_, err := auth.Authenticate(context.Background(), []string{token}, netip.Addr{})
		return err
	}
	// burst is how many are taken at once, and the wait that the next one is told.
	burst := func(token string) (taken int, wait time.Duration) {
		for {
			err := use(token)
			if err == nil {
				if taken++; taken > 1000 {
					t.Fatal("there is no limit")
				}
				continue
			}
			e, ok := errors.AsType[*posthorn.Error](err)
			if !ok || e.Code != posthorn.RateLimited {
				t.Fatal(err)
			}
			return taken, e.RetryAfter
		}
	}
	if taken, wait := burst(tokens[0]); taken != 5 || wait <= 0 || wait > 200*time.Millisecond {
		t.Errorf("%d at once, then a wait of %s", taken, wait)
	}
	auth.Notice(store.Notice{Kind: store.NoticeAll}) // forgetting principals fills no bucket
	if taken, _ := burst(tokens[0]); taken != 0 {
		t.Errorf("a change elsewhere gave the token %d more", taken)
	}
	if err := use(tokens[1]); err != nil {
		t.Errorf("another token is refused: %v", err)
	}
	// Over any stretch no more than the rate goes through, and who waits as told gets in.
	total := 0
	for range 50 {
		taken, wait := burst(tokens[0])
		total += taken
		now = now.Add(wait)
	}
	if total < 49 || total > 51 {
		t.Errorf("%d requests were taken in %d waits", total, 50)
	}
	now = now.Add(time.Hour)
	if taken, _ := burst(tokens[0]); taken != 5 {
		t.Errorf("%d at once after an hour: the bucket holds a second's worth", taken)
	}
	tally.Count(t, "a token's requests stay below its rate, whatever others do", tried)
}

func TestWithoutARateNothingIsCounted(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "posthorn.db"), sqlite.Serve)
	now := time.Now()
	auth := access.New(access.Config{Store: s, Now: func() time.Time { return now }})
	text, hash := access.NewToken()
	if _, err := s.CreateToken(t.Context(), store.Change{Actor: "test", At: now}, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, now), Hash: hash, Scopes: access.Scopes(), CreatedAt: now,
	}); err != nil {
		t.Fatal(err)
	}
	for range 10_000 {
		if _, err := auth.Authenticate(t.Context(), []string{"Bearer " + text}, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
}
