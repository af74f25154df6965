package app

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
)

// A header's value goes to the origin that it was set for: whoever writes another url
// into the store does not get it, nor does one that was changed while it was set.
func TestAHeadersValueGoesToItsOriginOnly(t *testing.T) {
	keys, err := secretbox.ParseKeys(secretbox.Generate("k1"))
	if err != nil {
		t.Fatal(err)
	}
	const url, tenant, endpoint = "https://partner.example.com/hooks", 7, 9
	keyID, box := keys.SealHeader("Bearer geheim", posthorn.Origin(url), tenant, endpoint)
	oldID, old := keys.Seal([]byte("Bearer alt"), secretbox.Bind{Kind: "header", Tenant: tenant, Endpoint: endpoint})
	for _, tt := range []struct {
		url  string
		box  []byte
		want string // "" for none, "fault" for class local
	}{
		{url, box, "Bearer geheim"},
		{"https://partner.example.com/other?a=b", box, "Bearer geheim"},
		{"HTTPS://Partner.Example.COM:443/hooks", box, "Bearer geheim"},
		{"https://attacker.example.com/hooks", box, ""},
		{"http://partner.example.com/hooks", box, ""},
		{"https://partner.example.com:8443/hooks", box, ""},
		{"https://partner.example.com.attacker.example/hooks", box, ""},
		{"https://sub.partner.example.com/hooks", box, ""},
		{"https://partner.example.com@attacker.example/hooks", box, ""},
		{"%", box, ""},
		{"https://attacker.example.com/hooks", old, "Bearer alt"}, // the older form says no origin
	} {
		var log proof.Output
		s := newSender(nil, keys, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
		id := keyID
		if string(tt.box) == string(old) {
			id = oldID
		}
		target := &store.Target{Endpoint: posthorn.Endpoint{ID: endpoint, Tenant: tenant, URL: tt.url}}
		target.Headers = []store.SealedHeader{{Name: "Authorization", Sealed: store.Sealed{ID: 1, KeyID: id, Box: tt.box}}}
		for range 2 { // opened, then remembered
			headers, err := s.headers(target)
			got := ""
			if len(headers) == 1 {
				got = headers[0].Value
			}
			if err != nil || got != tt.want {
				t.Errorf("%s: %q, %v, want %q", tt.url, got, err, tt.want)
			}
		}
		if told := strings.Contains(log.String(), "left out"); told != (tt.want == "") || strings.Contains(log.String(), "geheim") {
			t.Errorf("%s: the log says: %s", tt.url, log.String())
		}
		target.Endpoint.Tenant++
		if headers, err := newSender(nil, keys, time.Now, slog.New(slog.DiscardHandler)).headers(target); err == nil {
			t.Errorf("%s: another tenant's value is opened: %v", tt.url, headers)
		}
	}
}

// Both forms of a header's box are sealed with the present key, each in its form.
func TestKeyRotationKeepsTheFormOfHeaders(t *testing.T) {
	first := secretbox.Generate("k1")
	before, _ := secretbox.ParseKeys(first)
	after, err := secretbox.ParseKeys(secretbox.Generate("k2") + "," + first)
	if err != nil {
		t.Fatal(err)
	}
	for _, origin := range []string{"", "https://partner.example.com:443"} {
		b := store.Box{Kind: store.BoxHeader, Tenant: 7, Endpoint: 9}
		if b.KeyID, b.Sealed = before.SealHeader("v", origin, 7, 9); origin == "" {
			b.KeyID, b.Sealed = before.Seal([]byte("v"), secretbox.Bind{Kind: "header", Tenant: 7, Endpoint: 9})
		}
		r, needed, err := resealed(&b, after)
		if err != nil || !needed {
			t.Fatalf("%q: %v, %v", origin, needed, err)
		}
		if value, bound, err := after.OpenHeader(r.NewKeyID, r.NewSealed, 7, 9); err != nil || value != "v" || bound != origin || r.NewKeyID != "k2" {
			t.Errorf("%q: %q bound to %q by %s, %v", origin, value, bound, r.NewKeyID, err)
		}
	}
}
