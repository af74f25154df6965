package posthorn

import "strings"

// Pattern is what an endpoint subscribes to: an event type, or a prefix and
// ".*", which matches every type below the prefix at any depth ("cases.*"
// matches "cases.created" and "cases.tasks.created", not "cases"). "*" alone
// matches every type but the operational ones; those are matched only by
// patterns that begin with "webhooks.".
type Pattern string

// OperationalPrefix begins the types that Posthorn itself makes.
const OperationalPrefix = "webhooks."

// MaxTypeLength bounds an event type and a pattern, in bytes.
const MaxTypeLength = 256

// Match reports whether the pattern matches the event type.
func (p Pattern) Match(eventType string) bool {
	if p == "*" {
		return !strings.HasPrefix(eventType, OperationalPrefix)
	}
	prefix, open := strings.CutSuffix(string(p), "*")
	if !open {
		return string(p) == eventType
	}
	return len(eventType) > len(prefix) && strings.HasPrefix(eventType, prefix)
}

// Valid reports whether the pattern is well formed. Whether it matches anything
// in the catalogue is the catalogue's question.
func (p Pattern) Valid() bool {
	s := string(p)
	if s == "*" {
		return true
	}
	s, _ = strings.CutSuffix(s, ".*")
	return len(p) <= MaxTypeLength && ValidType(s)
}

// ValidType reports whether s is an event type: segments of
// [a-z0-9]+([-_][a-z0-9]+)* joined by dots, at most [MaxTypeLength] bytes.
func ValidType(s string) bool {
	if len(s) > MaxTypeLength {
		return false
	}
	wordEnd := false // the last byte was a letter or digit
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
			wordEnd = true
		case c == '.' || c == '-' || c == '_':
			if !wordEnd {
				return false
			}
			wordEnd = false
		default:
			return false
		}
	}
	return wordEnd
}
