package webhook_test

import (
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthorn/posthorn/webhook"
)

const (
	secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	id     = "msg_p5jXN8AQM9LWM0D4loKWxJek"
)

var (
	body = []byte(`{"test": 2432232314}`)
	sent = time.Unix(1614265330, 0)
)

func mustKey(t testing.TB, secret string) []byte {
	t.Helper()
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(signature string, at time.Time) http.Header {
	h := http.Header{}
	h.Set(webhook.HeaderID, id)
	h.Set(webhook.HeaderTimestamp, strconv.FormatInt(at.Unix(), 10))
	h.Set(webhook.HeaderSignature, signature)
	return h
}

// The vector is the one that all official libraries carry in their tests.
func TestSignOfficialVector(t *testing.T) {
	got := string(webhook.Sign(nil, id, sent, body, mustKey(t, secret)))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("Sign = %s, want %s", got, want)
	}
}

func TestSignAppendsAndSeparates(t *testing.T) {
	old := mustKey(t, webhook.NewSecret())
	current := mustKey(t, secret)
	got := string(webhook.Sign([]byte("x: "), id, sent, body, current, old))
	want := "x: " + string(webhook.Sign(nil, id, sent, body, current)) + " " + string(webhook.Sign(nil, id, sent, body, old))
	if got != want {
		t.Errorf("Sign with two keys = %q, want %q", got, want)
	}
	if got := webhook.Sign(nil, id, sent, body); len(got) != 0 {
		t.Errorf("Sign without keys = %q, want nothing", got)
	}
}

// A Signer that is used again and by many at once signs as Sign does.
func TestSignersSignAsSign(t *testing.T) {
	current, old := mustKey(t, secret), []byte(strings.Repeat("o", 64))
	signers := []*webhook.Signer{webhook.NewSigner(current), webhook.NewSigner(old)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 100 {
				at, text := sent.Add(time.Duration(n)*time.Second), []byte(strings.Repeat("x", 100*i+n))
				got := string(webhook.SignWith([]byte("x: "), id, at, text, signers...))
				if want := string(webhook.Sign([]byte("x: "), id, at, text, current, old)); got != want {
					t.Errorf("SignWith = %q, want %q", got, want)
				}
			}
		})
	}
	wg.Wait()
	b := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { b = webhook.SignWith(b[:0], id, sent, body, signers[0]) }); n > 1 {
		t.Errorf("SignWith allocates %v times, want the sum's memory and no more", n)
	}
}

func TestSignAllocatesLittle(t *testing.T) {
	key, b := mustKey(t, secret), make([]byte, 0, 256)
	if n := testing.AllocsPerRun(100, func() { b = webhook.Sign(b[:0], id, sent, body, key) }); n > 6 {
		t.Errorf("Sign allocates %v times, want what hmac.New takes and no more", n)
	}
}

// FuzzAgainstOfficial holds both ways against the official library: what we
// sign it verifies, what it signs we verify, and the bytes are the same.
func FuzzAgainstOfficial(f *testing.F) {
	f.Add("evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW", []byte(`{"a":1}`), []byte(strings.Repeat("k", 32)))
	f.Add("a", []byte{}, []byte(strings.Repeat("\x00", 24)))
	f.Add("a.b", []byte(`{}`), []byte(strings.Repeat("k", 32)))
	f.Add("-", []byte("\xff\x00"), []byte(strings.Repeat("\xff", 64)))
	f.Fuzz(func(t *testing.T, id string, body, key []byte) {
		if len(key) < 24 || len(key) > 64 || id == "" {
			return
		}
		official, err := standard.NewWebhook(webhook.FormatSecret(key))
		if err != nil {
			t.Fatal(err)
		}
		now := time.Now()
		if strings.Contains(id, ".") { // the official library signs such an id
			if got := webhook.Sign(nil, id, now, body, key); len(got) != 0 {
				t.Fatalf("the id %q is signed: %s", id, got)
			}
			return
		}
		theirs, err := official.Sign(id, now, body)
		if err != nil {
			t.Fatal(err)
		}
		ours := string(webhook.Sign(nil, id, now, body, key))
		if ours != theirs {
			t.Fatalf("ours %s, official %s", ours, theirs)
		}
		h := http.Header{}
		h.Set(webhook.HeaderID, id)
		h.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
		other := string(webhook.Sign(nil, id, now, body, []byte(strings.Repeat("o", 32))))
		h.Set(webhook.HeaderSignature, other+" "+ours)
		if err := official.Verify(body, h); err != nil {
			t.Errorf("official library: %v", err)
		}
		v, err := webhook.NewVerifier(webhook.FormatSecret(key))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(h, body); err != nil {
			t.Errorf("our verifier: %v", err)
		}
		if err := v.Verify(h, append(body, ' ')); !errors.Is(err, webhook.ErrSignature) {
			t.Errorf("a changed body gave %v", err)
		}
	})
}

func TestVerify(t *testing.T) {
	good := string(webhook.Sign(nil, id, sent, body, mustKey(t, secret)))
	b64 := strings.TrimPrefix(good, "v1,")
	raw, _ := base64.StdEncoding.DecodeString(b64)
	now := sent.Add(time.Minute)
	at := func(seconds string) http.Header {
		h := request(good, sent)
		h.Set(webhook.HeaderTimestamp, seconds)
		return h
	}
	without := func(name string) http.Header {
		h := request(good, sent)
		h.Del(name)
		return h
	}
	twice := func(name, value string) http.Header {
		h := request(good, sent)
		h.Add(name, value)
		return h
	}
	signed := func(s string) http.Header { return request(s, sent) }
	for _, tt := range []struct {
		name string
		h    http.Header
		want error
	}{
		{"good", signed(good), nil},
		{"second of two", signed("v1,AAAA " + good), nil},
		{"second line", twice(webhook.HeaderSignature, "v1,AAAA"), nil},
		{"beside another scheme", signed("v1a,AAAA v2," + b64 + " " + good), nil},
		{"no id", without(webhook.HeaderID), webhook.ErrNoHeaders},
		{"no timestamp", without(webhook.HeaderTimestamp), webhook.ErrNoHeaders},
		{"no signature", without(webhook.HeaderSignature), webhook.ErrNoHeaders},
		{"empty header", signed(""), webhook.ErrNoHeaders},
		{"two ids", twice(webhook.HeaderID, "other"), webhook.ErrRepeatedHeader},
		{"two timestamps", twice(webhook.HeaderTimestamp, "1"), webhook.ErrRepeatedHeader},
		{"empty signature", signed("v1,"), webhook.ErrSignature},
		{"cut signature", signed(good[:len(good)-1]), webhook.ErrSignature},
		{"one character", signed("v1,g"), webhook.ErrSignature},
		{"longer signature", signed(good + "A"), webhook.ErrSignature},
		{"no scheme", signed(b64), webhook.ErrNoSignature},
		{"other scheme", signed("v1a," + b64), webhook.ErrNoSignature},
		{"scheme in upper case", signed("V1," + b64), webhook.ErrNoSignature},
		{"url-safe alphabet", signed("v1," + base64.URLEncoding.EncodeToString(raw)), webhook.ErrSignature},
		{"unpadded", signed("v1," + base64.RawStdEncoding.EncodeToString(raw)), webhook.ErrSignature},
		{"comma instead of space", signed("v1,AAAA," + good), webhook.ErrSignature},
		{"timestamp of words", at("soon"), webhook.ErrTimestamp},
		{"timestamp with plus", at("+1614265330"), webhook.ErrTimestamp},
		{"timestamp with zero", at("01614265330"), webhook.ErrTimestamp},
		{"timestamp with space", at(" 1614265330"), webhook.ErrTimestamp},
		{"timestamp with fraction", at("1614265330.0"), webhook.ErrTimestamp},
		{"other timestamp", at("1614265331"), webhook.ErrSignature},
		{"smallest timestamp", at("-9223372036854775808"), webhook.ErrTooOld},
		{"largest timestamp", at("9223372036854775807"), webhook.ErrTooNew},
		{"beyond all numbers", at("9223372036854775808"), webhook.ErrTimestamp},
	} {
		v, err := webhook.NewVerifier(webhook.NewSecret(), secret)
		if err != nil {
			t.Fatal(err)
		}
		v.Now = func() time.Time { return now }
		if err := v.Verify(tt.h, body); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestVerifyTolerance(t *testing.T) {
	for _, tt := range []struct {
		tolerance, off time.Duration
		want           error
	}{
		{webhook.DefaultTolerance, 5 * time.Minute, nil},
		{webhook.DefaultTolerance, 5*time.Minute + time.Second, webhook.ErrTooOld},
		{webhook.DefaultTolerance, -5 * time.Minute, nil},
		{webhook.DefaultTolerance, -5*time.Minute - time.Second, webhook.ErrTooNew},
		{time.Hour, 59 * time.Minute, nil},
		{0, 0, nil},
		{0, time.Second, webhook.ErrTooOld},
	} {
		v, err := webhook.NewVerifier(secret)
		if err != nil {
			t.Fatal(err)
		}
		v.Tolerance, v.Now = tt.tolerance, func() time.Time { return sent.Add(tt.off) }
		err = v.Verify(request(string(webhook.Sign(nil, id, sent, body, mustKey(t, secret))), sent), body)
		if !errors.Is(err, tt.want) {
			t.Errorf("%v late with tolerance %v: %v, want %v", tt.off, tt.tolerance, err, tt.want)
		}
		if tt.want != nil && !errors.Is(err, webhook.ErrTimestamp) {
			t.Errorf("%v is not an ErrTimestamp", err)
		}
	}
}

func TestSecrets(t *testing.T) {
	if a, b := webhook.NewSecret(), webhook.NewSecret(); a == b || len(mustKey(t, a)) != 32 {
		t.Errorf("NewSecret gave %q and %q", a, b)
	}
	enc := func(n int) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("\xfb", n))) }
	for _, s := range []string{secret, "whsec_" + enc(24), "whsec_" + enc(25), "whsec_" + enc(64)} {
		if got := webhook.FormatSecret(mustKey(t, s)); got != s {
			t.Errorf("%s comes back as %s", s, got)
		}
	}
	for name, s := range map[string]string{
		"empty": "", "prefix only": "whsec_", "no prefix": enc(32), "other prefix": "whsk_" + enc(32),
		"short": "whsec_" + enc(23), "long": "whsec_" + enc(65), "hex": "whsec_" + strings.Repeat("0f", 31),
		"unpadded": "whsec_" + strings.TrimRight(enc(32), "="), "too much padding": "whsec_" + enc(32) + "=",
		"url-safe":   "whsec_" + strings.NewReplacer("+", "-", "/", "_").Replace(enc(32)),
		"line break": "whsec_" + enc(32)[:8] + "\n" + enc(32)[8:], "line break at the end": "whsec_" + enc(32) + "\n",
		"space":        "whsec_ " + enc(32),
		"stray bits":   "whsec_" + strings.Repeat("A", 42) + "B=",
		"twice prefix": "whsec_whsec_" + enc(32), "huge": "whsec_" + strings.Repeat("A", 1<<20),
	} {
		if key, err := webhook.ParseSecret(s); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("%s: key %x, error %v", name, key, err)
		} else if len(s) > 12 && strings.Contains(err.Error(), s) {
			t.Errorf("%s: the error repeats the secret", name)
		}
	}
	if _, err := webhook.NewVerifier(); !errors.Is(err, webhook.ErrSecret) {
		t.Errorf("a verifier without secrets: %v", err)
	}
	if _, err := webhook.NewVerifier(secret, ""); !errors.Is(err, webhook.ErrSecret) {
		t.Errorf("a verifier with an empty secret: %v", err)
	}
}

func FuzzParseSecret(f *testing.F) {
	f.Add(secret)
	f.Add("whsec_")
	f.Add("whsec_AAAA")
	f.Fuzz(func(t *testing.T, s string) {
		key, err := webhook.ParseSecret(s)
		if err != nil {
			return
		}
		if webhook.FormatSecret(key) != s || len(key) < 24 || len(key) > 64 {
			t.Errorf("%q was accepted as a key of %d bytes", s, len(key))
		}
	})
}

func FuzzVerify(f *testing.F) {
	f.Add("msg", "1614265330", "v1,x")
	f.Add("", "-1", " , v1,")
	v, err := webhook.NewVerifier(secret)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, id, stamp, signature string) {
		h := http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {stamp}, "Webhook-Signature": {signature}}
		if v.Verify(h, body) == nil {
			t.Errorf("accepted id %q, timestamp %q, signature %q", id, stamp, signature)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	key, body, out := mustKey(b, secret), []byte(strings.Repeat("x", 1024)), make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		out = webhook.Sign(out[:0], id, sent, body, key)
	}
}

func BenchmarkSigner(b *testing.B) {
	signer, body, out := webhook.NewSigner(mustKey(b, secret)), []byte(strings.Repeat("x", 1024)), make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		out = webhook.SignWith(out[:0], id, sent, body, signer)
	}
}

func sentAt() time.Time { return sent }

// officialSign signs as the official library does, which refuses no id.
func officialSign(t testing.TB, id, body string) string {
	t.Helper()
	official, err := standard.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := official.Sign(id, sent, []byte(body))
	if err != nil {
		t.Fatal(err)
	}
	return signature
}
