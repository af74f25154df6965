package api

import (
	"context"
	"sync"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

// maxKnownTenants bounds the memory that names take.
const maxKnownTenants = 10_000

// knownTenants remembers tenants by name: a platform publishes with one token
// for all of them, and each event would cost a read else. A change is told by
// the store before it is answered.
type knownTenants struct {
	source func(ctx context.Context, name string) (posthorn.Tenant, error)

	mu sync.RWMutex
	by map[string]posthorn.Tenant
	// era counts what notice let go, so that a read that began before it does not
	// put an old tenant back.
	era uint64
}

func (k *knownTenants) get(ctx context.Context, name string) (posthorn.Tenant, error) {
	k.mu.RLock()
	t, known := k.by[name]
	era := k.era
	k.mu.RUnlock()
	if known {
		return t, nil
	}
	t, err := k.source(ctx, name)
	if err != nil {
		return posthorn.Tenant{}, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.era == era {
		if k.by == nil || len(k.by) >= maxKnownTenants {
			k.by = make(map[string]posthorn.Tenant)
		}
		k.by[name] = t
	}
	return t, nil
}

func (k *knownTenants) notice(n store.Notice) {
	if n.Kind != store.NoticeAll && n.Kind != store.NoticeTenant {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.era++
	clear(k.by)
}
