package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

const day = 24 * time.Hour

// ParseDuration reads what [time.ParseDuration] reads, without a sign, and days
// before it: 90s, 2h30m, 7d, 1d12h. A day has 24 hours.
func ParseDuration(text string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a duration; write one as 30s, 15m, 2h or 7d", text)
	if text == "0" {
		return 0, nil
	}
	var total time.Duration
	rest := text
	if days, after, ok := strings.Cut(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 31)
		if err != nil || n > 36_500 {
			return 0, bad
		}
		total, rest = time.Duration(n)*day, after
	}
	if rest == "" && total == 0 && text != "0d" || strings.HasPrefix(rest, "-") || strings.HasPrefix(rest, "+") {
		return 0, bad
	}
	if rest != "" {
		d, err := time.ParseDuration(rest)
		if err != nil || d > 36_500*day {
			return 0, bad
		}
		total += d
	}
	return total, nil
}

func parseDuration(v string, to *time.Duration) (err error) {
	*to, err = ParseDuration(v)
	return err
}

// FormatDuration is the shortest text that [ParseDuration] reads as d, which is
// not negative: 30d, 1d12h, 5m, 1.5s.
func FormatDuration(d time.Duration) string {
	if d == 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		size time.Duration
		name string
	}{{day, "d"}, {time.Hour, "h"}, {time.Minute, "m"}} {
		if n := d / u.size; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d %= u.size
		}
	}
	if d > 0 {
		b.WriteString(d.String())
	}
	return b.String()
}

// FormatDurations joins durations with commas.
func FormatDurations(ds []time.Duration) string {
	texts := make([]string, len(ds))
	for i, d := range ds {
		texts[i] = FormatDuration(d)
	}
	return strings.Join(texts, ",")
}
