package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// counts are how often each fault and each transition occurred, in all worlds
// of this process.
var counts = struct {
	mu sync.Mutex
	of map[string]int
}{of: map[string]int{}}

func count(format string, args ...any) { countN(1, format, args...) }

func countN(n int, format string, args ...any) {
	what := fmt.Sprintf(format, args...)
	counts.mu.Lock()
	defer counts.mu.Unlock()
	counts.of[what] += n
}

// countTable is all that was counted, a line each.
func countTable() string {
	counts.mu.Lock()
	defer counts.mu.Unlock()
	var b strings.Builder
	for _, what := range slices.Sorted(maps.Keys(counts.of)) {
		fmt.Fprintf(&b, "%10d  %s\n", counts.of[what], what)
	}
	return b.String()
}
