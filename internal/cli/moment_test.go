package cli

import (
	"strings"
	"testing"
	"time"
)

func TestTimesThatCannotBeKeptAreUsageErrors(t *testing.T) {
	now := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	r := &runner{now: func() time.Time { return now }}
	for text, want := range map[string]string{
		"1677-12-31T23:59:59Z": "must be 1678",
		"0001-01-01T00:00:00Z": "must be 1678",
		"9999-12-31T00:00:00Z": "must be before 2262",
		"-5":                   "neither a time",
		"yesterday":            "neither a time",
	} {
		_, err := r.moment("since", text, -1)
		if f, ok := err.(*fault); !ok || f.exit != ExitUsage || !strings.Contains(f.message, want) || !strings.Contains(f.message, "--since") {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]time.Time{"": {}, "2h": now.Add(-2 * time.Hour), "1970-01-01T00:00:00Z": time.Unix(0, 0)} {
		if got, err := r.moment("since", text, -1); err != nil || !got.Equal(want) {
			t.Errorf("%s: %s, %v", text, got, err)
		}
	}
}
