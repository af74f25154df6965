package publish

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/store"
)

func setOf(expressions ...string) (set store.EndpointSet) {
	for i, e := range expressions {
		set.Endpoints = append(set.Endpoints, posthorn.Endpoint{ID: int64(i + 1), Settings: posthorn.Settings{Filter: e}})
	}
	return set
}

// weighs recounts what is kept, and fails where the sums are wrong.
func (p *programs) weighs(t *testing.T) (all int) {
	t.Helper()
	for tenant, s := range p.of {
		sum := 0
		for _, one := range s.line {
			if s.by[one.expression] != one {
				t.Errorf("tenant %d: a program in the line is not the one that is found", tenant)
			}
			sum += one.compiled.Load().weight
		}
		if sum != s.weight || len(s.line) != len(s.by) {
			t.Errorf("tenant %d: says %d bytes of %d programs, holds %d of %d", tenant, s.weight, len(s.by), sum, len(s.line))
		}
		all += sum
	}
	if all != p.weight {
		t.Errorf("says %d bytes in all, holds %d", p.weight, all)
	}
	return all
}

// keptOf is how many of the programs need no compiling.
func keptOf(filters map[int64]*program) (n int) {
	for _, p := range filters {
		if p.compiled.Load() != nil {
			n++
		}
	}
	return n
}

// One tenant has a thousand heavy filters asked again and again; another has a few.
func TestCompiledFiltersAreKeptByWeight(t *testing.T) {
	const most = 1 << 20
	p := &programs{most: most}
	var few []string
	for i := range 20 {
		few = append(few, fmt.Sprintf(`data.n == %d`, i))
	}
	victim := p.filters(2, setOf(few...))
	for _, one := range victim {
		if _, work := one.get(); work == 0 {
			t.Error("compiling took nothing")
		}
	}
	var heavy []string
	for i := range 30 {
		heavy = append(heavy, fmt.Sprintf(`type.matches("^(\\pL+,){9}%d")`, i))
	}
	hostile := p.filters(1, setOf(heavy...))
	for range 2 {
		for _, one := range hostile {
			kept := one.compiled.Load() != nil // from the first time, perhaps
			if c, work := one.get(); c.err != nil || (work == 0) != kept {
				t.Fatalf("%v after %v: kept before: %v", c.err, work, kept)
			}
			if w := p.weighs(t); w > most {
				t.Fatalf("%d bytes are kept", w)
			}
		}
	}
	if n := keptOf(hostile); n == 0 || n > 3 {
		t.Errorf("%d of the hostile are kept", n)
	}
	if n := keptOf(victim); n != len(few) {
		t.Errorf("%d of the victim's %d are kept", n, len(few))
	}
	// An index that is made again finds them.
	again := p.filters(2, setOf(append(few, few[0], `data.n == 100`)...))
	if n := keptOf(again); n != len(few)+1 || again[1] != again[int64(len(few)+1)] {
		t.Errorf("%d are found again, or one expression is two programs", n)
	}
	p.drop(1)
	p.drop(2)
	if p.weighs(t) != 0 || keptOf(hostile)+keptOf(again) != 0 {
		t.Error("what was dropped is kept")
	}
}

// What was asked since is kept rather than what was not.
func TestFiltersThatAreNotAskedAreLetGoFirst(t *testing.T) {
	p := &programs{most: 12 * 5000}
	var expressions []string
	for i := range 100 {
		expressions = append(expressions, fmt.Sprintf(`data.n == %d`, i))
	}
	filters := p.filters(1, setOf(expressions...))
	for i := range int64(100) {
		filters[i+1].get()
		if _, work := filters[1].get(); work > 0 && i > 0 {
			t.Fatalf("what was asked last was let go for number %d", i+1)
		}
	}
	if n := keptOf(filters); n < 8 {
		t.Errorf("of 100, %d are kept", n)
	}
}

// Tenants ask, change and go at random, with several indexes at a time.
func TestKeptFiltersAreCountedRightly(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	p := &programs{most: 100_000}
	indexes := map[int64][]map[int64]*program{}
	for range 800 {
		tenant := r.Int64N(5)
		switch held := indexes[tenant]; {
		case len(held) == 0 || r.IntN(20) == 0:
			a, b := fmt.Sprintf(`data.n == %d`, r.IntN(6)), fmt.Sprintf(`no (%d`, r.IntN(3))
			indexes[tenant] = append(held, p.filters(tenant, setOf(a, b, a)))
		case r.IntN(50) == 0:
			p.drop(tenant)
		case r.IntN(30) == 0:
			indexes[tenant] = held[1:]
		default:
			held[r.IntN(len(held))][1+r.Int64N(3)].get()
		}
		if p.weighs(t) > p.most || t.Failed() {
			t.Fatalf("seed %d: %d bytes are kept", seed, p.weight)
		}
	}
}
