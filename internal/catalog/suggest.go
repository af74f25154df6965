package catalog

import "strings"

// Suggest returns the entry whose name is nearest to a mistyped type or pattern,
// or "" when none is near. It is what a refusal proposes.
func (c *Catalog) Suggest(name string) string {
	if len(name) > 64 {
		return "" // no name is that long, and the comparison is dear
	}
	wanted := strings.NewReplacer(" ", "", "/", ".", ":", ".").Replace(strings.ToLower(strings.TrimSpace(name)))
	best, nearest := "", max(2, len(wanted)/4)+1
	for _, t := range c.types {
		apart := len(wanted) - len(t.Name)
		if max(apart, -apart) >= nearest || isPrefix(t.Name) && !strings.HasSuffix(wanted, "*") {
			continue
		}
		if d := distance(wanted, t.Name); d < nearest {
			best, nearest = t.Name, d
		}
	}
	return best
}

// distance is the number of characters to insert, delete, replace or exchange
// with their neighbour (optimal string alignment).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			replace := 1
			if a[i-1] == b[j-1] {
				replace = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+replace)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
