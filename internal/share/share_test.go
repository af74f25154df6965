package share

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// TestOneOfManyTakesNoMoreThanItsShare has one party take what it can get.
func TestOneOfManyTakesNoMoreThanItsShare(t *testing.T) {
	p := NewPool(800, 0)
	hog := Tenant(1)
	n := int64(0)
	for p.Take(hog, 1) == nil {
		n++
	}
	if n != 600 {
		t.Errorf("one party alone took %d of 800, want three quarters", n)
	}
	if err := p.Take(hog, 1); !errors.Is(err, ErrExceeded) {
		t.Errorf("then it was told %v, want ErrExceeded", err)
	}
	for i := range int64(50) {
		if err := p.Take(Tenant(2+i), 1); err != nil {
			t.Fatalf("party %d was refused its first: %v", 2+i, err)
		}
	}
	if got := p.Held(hog); got != 600 {
		t.Errorf("it holds %d", got)
	}
	p.Give(hog, 600)
	if amount, parties := p.Taken(); amount != 50 || parties != 50 {
		t.Errorf("%d of %d parties are left, want 50 of 50", amount, parties)
	}
}

func TestPoolBoundsEach(t *testing.T) {
	p := NewPool(1000, 100)
	if err := p.Take(Tenant(1), 300); err != nil {
		t.Errorf("who holds nothing may take more than a share at once: %v", err)
	}
	if err := p.Take(Tenant(1), 1); !errors.Is(err, ErrExceeded) {
		t.Errorf("more than its share: %v", err)
	}
	if err := p.Take(Platform("tok_1"), 400); err != nil {
		t.Error(err)
	}
	if err := p.Take(Platform("tok_1"), 101); !errors.Is(err, ErrExceeded) {
		t.Errorf("more than half of all for the platform: %v", err)
	}
	if err := p.Take(Tenant(2), 301); !errors.Is(err, ErrFull) {
		t.Errorf("more than is there: %v", err)
	}
}

// TestPoolCountsWhatIsGivenBack takes and gives at random and compares with a
// plain count.
func TestPoolCountsWhatIsGivenBack(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p, held, all := NewPool(1000, 400), map[Party]int64{}, int64(0)
	for range 20_000 {
		who, n := Tenant(r.Int64N(12)), 1+r.Int64N(120)
		if r.IntN(2) == 0 && held[who] >= n {
			p.Give(who, n)
			held[who] -= n
			all -= n
		} else if p.Take(who, n) == nil {
			held[who] += n
			all += n
		}
		if taken, _ := p.Taken(); taken != all || p.Held(who) != held[who] || all > 1000 {
			t.Fatalf("seed %d: the pool says %d taken and %d held, true is %d and %d", seed, taken, p.Held(who), all, held[who])
		}
	}
}

func TestBudgetComesBack(t *testing.T) {
	b, now := NewBudget(0.1, time.Second), time.Unix(0, 0)
	who := Tenant(1)
	b.Spend(who, 1500*time.Millisecond, now)
	if got := b.Wait(who, now); got != 5*time.Second {
		t.Errorf("half a second overdrawn waits %v, want 5s", got)
	}
	if b.Wait(Tenant(2), now) != 0 {
		t.Error("another waits for it")
	}
	now = now.Add(6 * time.Second)
	if b.Wait(who, now) != 0 || b.Left(who, now) != 100*time.Millisecond {
		t.Errorf("after six seconds %v are left, want 100ms", b.Left(who, now))
	}
	if b.Left(who, now.Add(time.Hour)) != time.Second {
		t.Error("more came back than the burst")
	}
	for i := range int64(2 * maxParties) {
		b.Spend(Tenant(i), time.Millisecond, now)
	}
	if len(b.by) > maxParties {
		t.Errorf("%d parties are remembered", len(b.by))
	}
}

// TestTurns has one party ask for a hundred, and another for one.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(2, 100)
		most, now := map[Party]int{}, map[Party]int{}
		do := func(who Party, takes time.Duration) {
			leave, err := turns.Enter(t.Context(), who)
			if err != nil {
				t.Error(err)
				return
			}
			turns.mu.Lock()
			now[who]++
			most[who] = max(most[who], now[who])
			turns.mu.Unlock()
			<-time.After(takes)
			turns.mu.Lock()
			now[who]--
			turns.mu.Unlock()
			leave()
		}
		for range 100 {
			go do(Tenant(1), time.Second)
		}
		for i := range int64(5) {
			go do(Tenant(2+i), time.Second)
		}
		synctest.Wait()
		began := time.Now()
		do(Tenant(100), 0)
		if waited := time.Since(began); waited > 4*time.Second {
			t.Errorf("the seventh party waited %v behind a hundred of one", waited)
		}
		<-time.After(200 * time.Second)
		synctest.Wait()
		if most[Tenant(1)] != 1 {
			t.Errorf("one party did %d at once", most[Tenant(1)])
		}
		if len(turns.by) != 0 || turns.taken != 0 {
			t.Errorf("%d lines and %d places are left", len(turns.by), turns.taken)
		}
	})
}

func TestTurnsAreGivenBackByWhoWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turns := NewTurns(1, 2)
		leave, err := turns.Enter(t.Context(), Tenant(1))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := turns.Enter(ctx, Tenant(2)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		for range 2 {
			go func() {
				if leave, err := turns.Enter(t.Context(), Tenant(3)); err == nil {
					leave()
				}
			}()
		}
		synctest.Wait()
		if _, err := turns.Enter(t.Context(), Tenant(3)); !errors.Is(err, ErrExceeded) {
			t.Errorf("a third that waits: %v, want ErrExceeded", err)
		}
		if turns.Waiting() != 1 {
			t.Errorf("%d parties wait, want 1", turns.Waiting())
		}
		leave()
		leave() // once too often does no harm
		synctest.Wait()
		if len(turns.by) != 0 || turns.taken != 0 || turns.Waiting() != 0 {
			t.Errorf("%d lines and %d places are left", len(turns.by), turns.taken)
		}
	})
}

func TestAddressesOfOneSubscriberAreOneParty(t *testing.T) {
	a, b := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::ffff:1")
	if Address(a) != Address(b) {
		t.Error("two addresses of one /64 are two parties")
	}
	if Address(netip.MustParseAddr("::ffff:192.0.2.1")) != Address(netip.MustParseAddr("192.0.2.1")) {
		t.Error("a mapped address is another party")
	}
}
