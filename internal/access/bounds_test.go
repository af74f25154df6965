package access

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// everyone is a store in which every token is known.
type everyone struct{ touched map[int64]time.Time }

func (everyone) TokenByHash(_ context.Context, hash [32]byte) (store.Token, error) {
	return store.Token{ID: int64(binary.BigEndian.Uint64(hash[:])), Hash: hash}, nil
}

func (everyone) TenantByID(context.Context, int64) (posthorn.Tenant, error) {
	return posthorn.Tenant{}, store.ErrNotFound
}

func (everyone) TenantByName(context.Context, string) (posthorn.Tenant, error) {
	return posthorn.Tenant{}, store.ErrNotFound
}

func (s everyone) TouchTokens(_ context.Context, used map[int64]time.Time) error {
	for id, at := range used {
		s.touched[id] = at
	}
	return nil
}

func TestPrincipalsKeptAreBounded(t *testing.T) {
	s := everyone{touched: map[int64]time.Time{}}
	now := time.Date(2026, 4, 29, 12, 0, 0, 0, time.UTC)
	a := New(Config{Store: s, Now: func() time.Time { return now }})
	const tokens = maxCached + 500
	for range tokens {
		text, _ := NewToken()
		if _, err := a.Authenticate(t.Context(), []string{"Bearer " + text}, netip.Addr{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(a.known); n > maxCached {
		t.Errorf("%d principals are kept", n)
	}
	if err := a.Flush(t.Context()); err != nil || len(s.touched) != tokens {
		t.Errorf("%d of %d uses were flushed, %v", len(s.touched), tokens, err)
	}
	now = now.Add(idleAfter + time.Second)
	if err := a.Flush(t.Context()); err != nil || len(a.known) != 0 {
		t.Errorf("%d principals are kept though idle, %v", len(a.known), err)
	}
}

func TestAddressesKeptAreBounded(t *testing.T) {
	f := failures{by: make(map[netip.Addr]window)}
	now := time.Date(2026, 4, 29, 12, 0, 0, 0, time.UTC)
	address := func(i uint32) netip.Addr {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, i)))
	}
	for i := range uint32(maxAddresses * 2) {
		f.add(address(i), now)
	}
	if n := len(f.by); n > maxAddresses {
		t.Errorf("%d addresses are kept", n)
	}
	// A newcomer is counted even when all places are taken.
	last := address(maxAddresses * 3)
	for range maxFailures {
		if f.add(last, now) > 0 {
			t.Fatal("limited too early")
		}
	}
	if f.add(last, now) == 0 {
		t.Error("an address that comes late is never limited")
	}
	now = now.Add(failureWindow)
	for i := range uint32(1000) {
		f.add(address(maxAddresses*4+i), now)
	}
	// Newcomers take the places of those that are over, not of each other.
	for i := range uint32(1000) {
		if _, kept := f.by[address(maxAddresses*4+i)]; !kept {
			t.Errorf("newcomer %d was dropped though most of the others are over", i)
		}
	}
	if n := len(f.by); n > maxAddresses {
		t.Errorf("%d addresses are kept", n)
	}
}
