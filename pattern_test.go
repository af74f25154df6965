package posthorn_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/posthorn/posthorn"
)

func TestPatternMatch(t *testing.T) {
	for _, c := range []struct {
		pattern posthorn.Pattern
		typ     string
		want    bool
	}{
		{"cases.created", "cases.created", true},
		{"cases.created", "cases.created.x", false},
		{"cases.*", "cases.created", true},
		{"cases.*", "cases.tasks.created", true},
		{"cases.*", "cases", false},
		{"cases.*", "casesx.created", false},
		{"cases.tasks.*", "cases.tasks.created", true},
		{"cases.tasks.*", "cases.created", false},
		{"*", "anything.at-all", true},
		{"*", "webhooks.endpoint.failing", false},
		{"webhooks.*", "webhooks.endpoint.failing", true},
		{"webhooks.ping", "webhooks.ping", true},
		{"assignments.*", "cases.created", false},
	} {
		if got := c.pattern.Match(c.typ); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.pattern, c.typ, got, c.want)
		}
	}
}

func TestPatternValid(t *testing.T) {
	for p, want := range map[posthorn.Pattern]bool{
		"*": true, "cases.*": true, "cases.tasks.created": true, "assignments.billing-details.*": true, "a_b.c-1": true,
		"": false, ".*": false, "cases*": false, "cases.": false, "cases.*.created": false, "**": false, "Cases.created": false,
		"a--b": false, "-a": false, "a-": false, "a..b": false, "cases.* ": false, "a.\x00": false,
		posthorn.Pattern(strings.Repeat("a", 257)): false,
	} {
		if p.Valid() != want {
			t.Errorf("Pattern(%q).Valid() = %v", p, !want)
		}
	}
}

// The contract's own words are the oracle.
var typeForm = regexp.MustCompile(`\A[a-z0-9]+([-_][a-z0-9]+)*(\.[a-z0-9]+([-_][a-z0-9]+)*)*\z`)

func FuzzValidType(f *testing.F) {
	for _, s := range []string{"cases.created", "a", "", "a..b", "a-b_c.d", "a.-b", "é"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if want := typeForm.MatchString(s) && len(s) <= posthorn.MaxTypeLength; posthorn.ValidType(s) != want {
			t.Errorf("ValidType(%q) = %v, the contract's expression says %v", s, !want, want)
		}
	})
}
