package store_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/internal/store"
)

// asked is something that a tenant wants to be written.
type asked struct {
	tenant int64
	rows   int
}

func newGroups() store.Groups[asked] {
	return store.NewGroups(func(a asked) (int64, int) { return a.tenant, a.rows })
}

// perRow is how long a row takes to be written.
const perRow = 10 * time.Microsecond

// write takes the next group and writes it, in the time of a bubble. It returns how long
// the writer waited before.
func write(g *store.Groups[asked]) (group []asked, waited time.Duration) {
	for {
		group, wait := g.Take()
		if len(group) > 0 || wait == 0 {
			time.Sleep(time.Duration(rows(group)) * perRow)
			g.Written()
			return group, waited
		}
		time.Sleep(wait)
		waited += wait
	}
}

func rows(group []asked) (n int) {
	for _, a := range group {
		n += a.rows
	}
	return n
}

func TestGroupsOfOneTenantAreAsLargeAsTheyMayBe(t *testing.T) {
	of := func(n, rows int) []asked { return slices.Repeat([]asked{{1, rows}}, n) }
	for name, c := range map[string]struct {
		asked []asked
		want  []int
	}{
		"none":                        {nil, nil},
		"all that waits":              {of(3, 2), []int{3}},
		"the engine's go with it":     {slices.Concat(of(3, 2), slices.Repeat([]asked{{0, 1}}, 3), of(1, 2)), []int{7}},
		"by callers":                  {of(2500, 1), []int{1024, 1024, 452}},
		"by deliveries":               {of(12, 1000), []int{5, 5, 2}},
		"one that is too large alone": {append(of(1, 20_000), of(9, 1)...), []int{9, 1}},
	} {
		g := newGroups()
		for _, a := range c.asked {
			g.Add(a)
		}
		var sizes []int
		for g.Len() > 0 {
			group, _ := g.Take()
			g.Written()
			sizes = append(sizes, len(group))
		}
		if !slices.Equal(sizes, c.want) {
			t.Errorf("%s: groups of %v, want %v", name, sizes, c.want)
		}
	}
}

// TestWhoWritesLittleWaitsForLittle: beside a tenant that writes as much as it can, what
// another asks for is in the group after the one that is being written, which is seldom
// a large one.
func TestWhoWritesLittleWaitsForLittle(t *testing.T) {
	for name, much := range map[string]asked{
		"a thousand deliveries each":    {1, 1001},
		"a batch of much":               {1, 3000},
		"two each":                      {1, 2},
		"just not large":                {1, 256},
		"results, of which many come":   {1, 1},
		"of no tenant, as claims are":   {0, 200},
		"of no tenant, and many a time": {0, 1000},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroups()
			began := time.Now()
			for range 3000 {
				g.Add(much)
			}
			g.Add(asked{2, 2})
			g.Add(asked{3, 2}) // so that the writer is shared from the beginning
			write(&g)
			var large time.Duration
			for i := range 200 {
				g.Add(asked{2, 2})
				if i%2 == 0 {
					g.Add(asked{3, 2})
				}
				group, waited := write(&g)
				if !slices.Contains(group, asked{2, 2}) || rows(group) > 768 || waited > 0 {
					t.Fatalf("%s: group %d is %v, after %s", name, i, group[:min(3, len(group))], waited)
				}
				g.Add(much)
				if group, _ = write(&g); rows(group) > 768 {
					if len(group) > 1 {
						t.Fatalf("%s: group %d is %v, large ones together", name, i, group)
					}
					large += time.Duration(rows(group)) * perRow
				}
			}
			if all := time.Since(began); all < 8*large {
				t.Errorf("%s: of %s large ones took %s", name, all, large)
			}
		})
	}
}

// TestWhoWritesMuchHasItsTurn: small operations that never end do not keep a large one
// waiting for ever, and tenants with large ones take turns.
func TestWhoWritesMuchHasItsTurn(t *testing.T) {
	for name, tenants := range map[string][]int64{"beside others": {4, 5}, "alone": {1}} {
		synctest.Test(t, func(t *testing.T) {
			g := newGroups()
			for range 3 {
				g.Add(asked{1, 1000})
				g.Add(asked{2, 1000})
			}
			g.Add(asked{3, 1000})
			g.Add(asked{tenants[0], 1})
			time.Sleep(2 * time.Second) // whoever is alone shares the writer with nobody
			var large []int64
			groups := 0
			for ; len(large) < 5 && groups < 1000; groups++ {
				for _, tenant := range tenants {
					for range 1100 {
						g.Add(asked{tenant, 1})
					}
				}
				group, _ := write(&g)
				for _, a := range group {
					if a.rows == 1000 {
						large = append(large, a.tenant)
					}
				}
			}
			if want := []int64{1, 2, 3, 1, 2}; !slices.Equal(large, want) || groups > 200 {
				t.Errorf("%s: in %d groups the large ones of tenants %v had their turns, want %v", name, groups, large, want)
			}
		})
	}
}

// TestGroupsAreLargeAgainWhenOneTenantIsLeft: no tenant pays for one that has gone.
func TestGroupsAreLargeAgainWhenOneTenantIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroups()
		first := func() int {
			for range 4 {
				g.Add(asked{1, 1000})
			}
			group, _ := write(&g)
			return len(group)
		}
		g.Add(asked{1, 2})
		g.Add(asked{2, 2})
		if n := first(); n != 2 {
			t.Errorf("with two small ones go %d large ones", n-2)
		}
		if n := first(); n != 1 {
			t.Errorf("beside another tenant %d large operations go together", n)
		}
		for g.Len() > 0 {
			write(&g)
		}
		time.Sleep(2 * time.Second)
		if n := first(); n != 4 {
			t.Errorf("alone again, %d of 4 go together", n)
		}
	})
}

// TestALargeOneThatTookLongHasOthersWaitForSeconds, and not for hours.
func TestALargeOneThatTookLongHasOthersWaitForSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroups()
		for tenant := range int64(2) {
			g.Add(asked{1 + tenant, 1000})
		}
		g.Take()
		time.Sleep(time.Minute) // an ill disk
		g.Written()
		g.Add(asked{1, 2})
		g.Add(asked{2, 2})
		write(&g)
		if group, waited := write(&g); len(group) != 1 || waited > 2*time.Second {
			t.Errorf("%d after %s", len(group), waited)
		}
	})
}

func TestOneTenantDoesNotFillTheWaitingRoom(t *testing.T) {
	for name, bytes := range map[string]int{"by number": 0, "by bytes": 1 << 20} {
		room := store.NewWaitingRoom()
		n := 0
		for room.Enter(1, bytes) == nil {
			n++
		}
		if n < 48 {
			t.Errorf("%s: only %d may wait", name, n)
		}
		for tenant := int64(2); tenant < 6; tenant++ {
			if err := room.Enter(tenant, bytes); err != nil {
				t.Errorf("%s: tenant %d is refused its first: %v", name, tenant, err)
			}
		}
		for range 5 {
			room.Leave(1, bytes)
		}
		for range n - 5 {
			room.Leave(1, bytes)
			if err := room.Enter(1, bytes); err != nil {
				t.Fatalf("%s: refused where it waited before: %v", name, err)
			}
		}
	}
}
