package send

import (
	"net/textproto"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/posthorn/posthorn"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		status int
		values []string
		want   time.Duration
	}{
		{429, []string{"120"}, 2 * time.Minute},
		{503, []string{" 5 "}, 5 * time.Second},
		{503, []string{"86400"}, day},
		{503, []string{"86401"}, day},
		{503, []string{"99999999999999999999999"}, day},
		{429, []string{"Wed, 29 Apr 2026 09:11:00 GMT"}, time.Minute},
		{429, []string{"Wednesday, 29-Apr-26 09:11:00 GMT"}, time.Minute},
		{429, []string{"Thu, 01 Jan 2099 00:00:00 GMT"}, day},
		{429, []string{"Wed, 29 Apr 2026 09:09:00 GMT"}, 0},
		{429, []string{"0"}, 0}, {429, []string{"-5"}, 0}, {429, []string{"+5"}, 0}, {429, []string{"1e99"}, 0},
		{429, []string{"NaN"}, 0}, {429, []string{"1.5"}, 0}, {429, []string{""}, 0}, {429, []string{"soon"}, 0},
		{429, []string{"5", "6"}, 0}, {429, []string{"5, 6"}, 0}, {429, nil, 0},
		{500, []string{"120"}, 0}, {200, []string{"120"}, 0}, {301, []string{"120"}, 0},
	} {
		a := &answer{status: tt.status}
		for _, value := range tt.values {
			a.fields = append(a.fields, posthorn.Header{Name: "retry-after", Value: value})
		}
		if got := retryAfter(a, func() time.Time { return now }); got != tt.want {
			t.Errorf("%d %q: %v, want %v", tt.status, tt.values, got, tt.want)
		}
	}
}

func TestText(t *testing.T) {
	for _, tt := range []struct {
		in    string
		limit int
		want  string
	}{
		{"plain", 10, "plain"},
		{"plain", 3, "pla"},
		{"", 3, ""},
		{"aü", 2, "a"},
		{"a€b", 3, "a"},
		{"a\x00b", 10, "a�b"},
		{"a\xffb", 10, "a�b"},
		{"\xff\xff\xff", 4, "�"},
		{"ab\xe2\x82", 10, "ab��"}, // it ended so: nothing is cut
	} {
		if got := string(text([]byte(tt.in), tt.limit)); got != tt.want {
			t.Errorf("text(%q, %d) = %q, want %q", tt.in, tt.limit, got, tt.want)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("a\x00\xff€"), 3)
	f.Fuzz(func(t *testing.T, b []byte, limit int) {
		if limit < 0 || limit > 1<<16 {
			return
		}
		got := text(b, limit)
		if len(got) > limit || !utf8.Valid(got) || strings.ContainsRune(string(got), 0) {
			t.Errorf("text(%q, %d) = %q", b, limit, got)
		}
		if utf8.Valid(b) && len(b) <= limit && !strings.ContainsRune(string(b), 0) && string(got) != string(b) {
			t.Errorf("text(%q, %d) = %q, want it as it is", b, limit, got)
		}
	})
}

// Headers are found whatever the case of their names.
func TestHeadersAreFound(t *testing.T) {
	for name := range readNames {
		for _, written := range []string{name, strings.ToUpper(name), textproto.CanonicalMIMEHeaderKey(name)} {
			if known([]byte(written)) != name {
				t.Errorf("%s will not be found", written)
			}
		}
	}
}
