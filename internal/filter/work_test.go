package filter

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"
)

// patternsOf joins so many patterns that differ.
func patternsOf(n int, pattern string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf(`type.matches("%s%d")`, pattern, i)
	}
	return strings.Join(all, "||")
}

// Each pattern is small enough for itself; seventy would weigh twenty megabytes.
func TestPatternsOfOneFilterAreBoundedInSum(t *testing.T) {
	_, err := Compile(patternsOf(70, `^(\\pL+,){9}`))
	if err == nil || !strings.Contains(err.Error(), "line 1, column 45: makes the patterns of this filter too large together") {
		t.Errorf("seventy large patterns: %v", err)
	}
	for name, expression := range map[string]string{
		"one large pattern":       patternsOf(1, `^(\\pL+,){9}`),
		"often the same":          strings.Repeat(patternsOf(1, `^(\\pL+,){9}`)+"||", 70) + "false",
		"many that people write":  patternsOf(30, `^[a-z0-9._]+@(mail[.])?example[.]com$`),
		"seventy small ones more": patternsOf(70, `^cases[.]`),
	} {
		if _, err := Compile(expression); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// What was stored before there was the bound says what it said.
	f, err := CompileStored(patternsOf(3, `^(\\pL+,){9}`))
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := f.Match("a,b,c,d,e,f,g,h,i,2", NewData([]byte(`{}`))); !ok || err != nil {
		t.Errorf("a stored filter says %v, %v", ok, err)
	}
	if f.Weight() < 600_000 {
		t.Errorf("a stored filter of large patterns says that it weighs %d bytes", f.Weight())
	}
}

// What filters weigh is compared with the memory that they hold.
func TestNoFilterWeighsMoreThanItSays(t *testing.T) {
	held := func() int64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	compiled(t, "true")
	all, _ := hostile()
	expressions := map[string]string{}
	for _, name := range []string{"comparing many with itself", "one among many copies", "comparing with itself", "many patterns"} {
		expressions[name] = all[name]
	}
	for _, p := range []string{`^(\\pL+,){9}`, `^([acegikm]){300}$`, `(?i)^((k|s)x){120}$`, `^[^a-z]{300}$`, `^[a-z]+@example[.]com`} {
		expressions[p] = patternsOf(1, p)
	}
	expressions["macros"] = strings.TrimSuffix(strings.Repeat("[1].exists_one(a,a>0)&&", 35), "&&")
	const copies = 4
	heavy := 0
	for name, expression := range expressions {
		if _, err := Compile(expression); err != nil {
			continue
		}
		kept := make([]*Filter, copies)
		before := held()
		for i := range kept {
			kept[i] = compiled(t, expression)
		}
		weighs, says := (held()-before)/copies, int64(kept[0].Weight())
		if weighs > says {
			t.Errorf("%s: weighs %d bytes and says %d", name, weighs, says)
		}
		if says > 1<<20 {
			t.Errorf("%s: says %d bytes; what is compiled is to stay below a megabyte", name, says)
		}
		if weighs > 70_000 {
			heavy++
		}
		runtime.KeepAlive(kept)
	}
	if heavy < 3 {
		t.Errorf("only %d are heavy: the estimate was not tried", heavy)
	}
}

// Work is counted: it is the same in each run, whatever else the machine does.
func TestTheWorkOfFiltersIsCounted(t *testing.T) {
	d := NewData([]byte(`{"n":1,"text":"` + strings.Repeat("a", 1000) + `"}`))
	if d.Work() != 0 {
		t.Errorf("nobody asked, and %v were spent", d.Work())
	}
	var last time.Duration
	asked := func(expression string) time.Duration {
		_, _ = compiled(t, expression).Match("cases.updated", d)
		was := last
		last = d.Work()
		return last - was
	}
	cheap := asked(`data.n == 1`)
	if decoding := 1024 * byteWork; cheap < decoding || cheap > decoding+10*time.Microsecond {
		t.Errorf("the first, which decodes the data, took %v", cheap)
	}
	if again := asked(`data.n == 1`); again < matchWork || again > 10*time.Microsecond || again != asked(`data.n == 1`) {
		t.Errorf("a cheap one took %v", again)
	}
	most := matchWork + maxCost*stepWork
	if cut := asked(`data.text.matches("(x+x+)+y|(a|b|ab)*(ba|a?b){30}c")`); cut != most {
		t.Errorf("one that was cut off took %v, want %v", cut, most)
	}
	if failed := asked(`data.missing == 1`); failed < matchWork || failed > 10*time.Microsecond {
		t.Errorf("one that failed took %v", failed)
	}
	small, large := CompileWork("true", compiled(t, "true")), CompileWork(patternsOf(70, `^a`), compiled(t, patternsOf(70, `^a`)))
	if small > 200*time.Microsecond || large < 5*time.Millisecond || CompileWork(strings.Repeat("(", 1<<20), nil) > time.Millisecond {
		t.Errorf("compiling took %v and %v", small, large)
	}
}
