package api

import (
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
)

// Who is refused for lack of room reads which bound was met, and whose it is.
func TestARefusalForLackOfRoomSaysWhoseBoundWasMet(t *testing.T) {
	fill := func(p *places, tenants int64, each int) {
		for tenant := range tenants {
			for range each {
				if err := p.take(share.Tenant(100 + tenant)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	const me = 7
	for name, tc := range map[string]struct {
		others int64 // tenants that have each two
		mine   int
		code   posthorn.Code
		says   string
	}{
		"the tenant's bound":              {0, 2, posthorn.RateLimited, "The tenant has 2 streams, and may have 2 at a time; end one."},
		"the tenant's bound, others have": {4, 2, posthorn.RateLimited, "The tenant has 2 streams, and may have 2 at a time; end one."},
		"most are in use":                 {7, 1, posthorn.RateLimited, "Most of the 20 streams that this node has for all tenants are in use, and the tenant has 1; it may have 2 again when others have ended."},
	} {
		p := newPlaces("streams", 20, 2, 15*time.Second)
		fill(&p, tc.others, 2)
		for range tc.mine {
			if err := p.take(share.Tenant(me)); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		err := p.take(share.Tenant(me))
		fault, _ := err.(*posthorn.Error)
		if fault == nil || fault.Code != tc.code || !strings.HasPrefix(fault.Message, tc.says) || fault.RetryAfter != 15*time.Second {
			t.Errorf("%s: %v", name, err)
		}
	}
	p := newPlaces("downloads of exports", 20, 2, time.Minute)
	fill(&p, 7, 2) // three quarters
	for tenant := range int64(6) {
		if err := p.take(share.Tenant(200 + tenant)); err != nil {
			t.Fatal(err)
		}
	}
	err := p.take(share.Tenant(me))
	fault, _ := err.(*posthorn.Error)
	if fault == nil || fault.Code != posthorn.Unavailable || fault.Message != "All 20 downloads of exports that this node has for all tenants are in use; try again later." || fault.RetryAfter != time.Minute {
		t.Errorf("the node's bound: %v", err)
	}
}
