package posthorn

import "testing"

func TestReservedHeaders(t *testing.T) {
	for _, name := range []string{"Webhook-Id", "svix-signature", "POSTHORN-test", "Host", "content-type", "Content-Length", "Idempotency-Key", "X-Idempotency-Key",
		"Connection", "keep-alive", "TE", "Trailer", "transfer-encoding", "upgrade", "proxy-authorization", "User-Agent", "traceparent", "Expect", "accept-encoding"} {
		if !ReservedHeader(name) {
			t.Errorf("%s is not reserved", name)
		}
	}
	for _, name := range []string{"Authorization", "X-Api-Key", "X-Webhook-Id", "Cookie", "Accept", "Tenant"} {
		if ReservedHeader(name) {
			t.Errorf("%s is reserved", name)
		}
	}
}

func TestHeaderGrammar(t *testing.T) {
	for name, want := range map[string]bool{"X-Key": true, "a!#$%&'*+-.^_`|~9": true, "": false, "a b": false, "a:": false, "a\r": false, "é": false, "a\x00": false, "(a)": false} {
		if got := ValidHeaderName(name); got != want {
			t.Errorf("name %q: %v", name, got)
		}
	}
	for value, want := range map[string]bool{"": true, "Bearer x.y": true, "a\tb": true, "é": true, "a\nb": false, "a\rb": false, "a\x00": false, "a\x7f": false, "\x1b[0m": false} {
		if got := ValidHeaderValue(value); got != want {
			t.Errorf("value %q: %v", value, got)
		}
	}
}

func TestSameOrigin(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"https://a.example/x", "https://a.example/y?z", true},
		{"https://a.example", "HTTPS://A.Example:443/", true},
		{"http://a.example", "http://a.example:80", true},
		{"http://a.example", "https://a.example", false},
		{"https://a.example", "https://a.example:8443", false},
		{"https://a.example", "https://b.a.example", false},
		{"https://a.example", "https://a.example.", false},
		{"https://[::1]/", "https://[::1]:443/", true},
		{"https://a.example/%zz", "https://a.example/", false},
	} {
		if got := SameOrigin(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}
