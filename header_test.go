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

// Receivers behind CGI or WSGI know a header by a variable in which "-" and "_" are
// the same: what they cannot tell apart is the same name to us.
func TestHeadersThatReceiversCannotTellApart(t *testing.T) {
	for _, name := range []string{"webhook_id", "Webhook_Signature", "svix_id", "Posthorn_Tenant", "POSTHORN_TEST", "Content_Type", "content_length",
		"User_Agent", "Transfer_Encoding", "Keep_Alive", "Idempotency_Key", "x_idempotency-key", "X-Idempotency_Key", "HTTP2_Settings", "Accept_Encoding",
		"Proxy_Authorization", "webhook.id", "content~type"} {
		if !ReservedHeader(name) {
			t.Errorf("%s is not reserved", name)
		}
	}
	for _, name := range []string{"X_Api_Key", "webhook", "webhookid", "x_webhook_id", "contents", "forwarded_by", "_", "te_"} {
		if ReservedHeader(name) {
			t.Errorf("%s is reserved", name)
		}
	}
	for _, c := range []struct {
		a, b string
		same bool
	}{
		{"X-Key", "x_key", true}, {"X-Api-Key", "X_Api-Key", true}, {"A__B", "a--b", true}, {"Authorization", "AUTHORIZATION", true},
		{"X.Key", "X-Key", true}, {"X-Key", "XKey", false}, {"X-Key", "X-Key-", false}, {"X--Key", "X-Key", false},
	} {
		if got := HeaderKey(c.a) == HeaderKey(c.b); got != c.same {
			t.Errorf("%s and %s are the same: %v", c.a, c.b, got)
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
		{"https://[2606:4700:4700::1111]/", "https://[2606:4700:4700:0:0:0:0:1111]/", true},
		{"https://[2606:4700:4700::1111]/", "https://[2606:4700:4700:0:0:0:0:1112]/", false},
		{"https://a.example/%zz", "https://a.example/", false},
	} {
		if got := SameOrigin(c.a, c.b); got != c.want {
			t.Errorf("%s and %s: %v", c.a, c.b, got)
		}
	}
}
