package verdict_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/verdict"
	"github.com/posthorn/posthorn/webhook"
)

const (
	id   = "evt_01J1C6ZGQ6FQTH2X6M2VS3P0XW"
	body = `{"id":"` + id + `","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{"name":"Zoë","url":"https://x.example/<a>","big":1152921504606846977}}`
)

var now = time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)

// world is a request as it was sent, to be spoiled.
type world struct {
	*testing.T
	secret string
	key    []byte
	verdict.Request
}

func newWorld(t *testing.T) *world {
	w := &world{T: t, secret: webhook.NewSecret()}
	w.key, _ = webhook.ParseSecret(w.secret)
	w.Request = verdict.Request{Header: http.Header{}, Body: []byte(body), Secrets: []string{w.secret}, Now: now, Tolerance: 5 * time.Minute}
	w.Header.Set(webhook.HeaderID, id)
	w.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	w.sign(w.key, body)
	return w
}

func (w *world) sign(key []byte, body string) {
	w.Header.Set(webhook.HeaderSignature, string(webhook.Sign(nil, id, now, []byte(body), key)))
}

func (w *world) signature() string {
	return strings.TrimPrefix(w.Header.Get(webhook.HeaderSignature), "v1,")
}

func (w *world) set(name, value string) { w.Header.Set(name, value) }

// rewritten is what a JSON library makes of the body.
func rewritten(t *testing.T, indent string) []byte {
	var v any
	if err := json.Unmarshal([]byte(body), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.MarshalIndent(v, "", indent)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestMistakesAreNamed(t *testing.T) {
	raw := func(w *world) []byte { b, _ := base64.StdEncoding.DecodeString(w.signature()); return b }
	for _, tc := range []struct {
		name  string
		spoil func(w *world)
		cause verdict.Cause
		says  string // in the explanation
	}{
		{"nothing", func(*world) {}, verdict.Valid, "right"},
		{"rotation", func(w *world) { w.Secrets = []string{webhook.NewSecret(), w.secret} }, verdict.Valid, "secret 2 of 2"},
		{"other scheme beside it", func(w *world) { w.set(webhook.HeaderSignature, "v1a,xyz v1,"+w.signature()) }, verdict.Valid, "right"},
		{"at the end of the tolerance", func(w *world) { w.Now = now.Add(5*time.Minute + 900*time.Millisecond) }, verdict.Valid, "right"},

		{"old", func(w *world) { w.Now = now.Add(10 * time.Minute) }, verdict.Clock, "10m0s old"},
		{"early", func(w *world) { w.Now = now.Add(-10 * time.Minute) }, verdict.Clock, "10m0s in the future"},
		{"milliseconds", func(w *world) { w.set(webhook.HeaderTimestamp, strconv.FormatInt(now.UnixMilli(), 10)) }, verdict.MalformedTimestamp, "milliseconds"},
		{"a date", func(w *world) { w.set(webhook.HeaderTimestamp, "2026-04-29T09:10:00Z") }, verdict.MalformedTimestamp, "Unix seconds"},

		{"no id", func(w *world) { w.Header.Del(webhook.HeaderID) }, verdict.MissingHeader, "webhook-id is missing"},
		{"no headers", func(w *world) { w.Header = http.Header{} }, verdict.MissingHeader, "None of"},
		{"svix", func(w *world) { w.Header = http.Header{"Svix-Signature": {"v1,x"}} }, verdict.MissingHeader, "not sent by Posthorn"},
		{"two ids", func(w *world) { w.Header.Add(webhook.HeaderID, "x") }, verdict.RepeatedHeader, "2 times"},
		{"two ids in two cases", func(w *world) { w.Header["webhook-id"] = []string{"x"} }, verdict.RepeatedHeader, "2 times"},
		{"names in lower case", func(w *world) { w.Header = respelled(w.Header, strings.ToLower) }, verdict.Valid, "right"},
		{"names in upper case", func(w *world) { w.Header = respelled(w.Header, strings.ToUpper) }, verdict.Valid, "right"},
		{"an id with a dot", func(w *world) { w.set(webhook.HeaderID, id+".1") }, verdict.MalformedID, "holds a dot"},
		{"an id of a dot", func(w *world) { w.set(webhook.HeaderID, ".") }, verdict.MalformedID, "holds a dot"},

		{"the second line fits", func(w *world) {
			w.Header[http.CanonicalHeaderKey(webhook.HeaderSignature)] = []string{"v1,AAAA", "v1," + w.signature()}
		}, verdict.Valid, "right"},
		{"a line in another case fits", func(w *world) {
			w.Header["webhook-signature"] = []string{"v1," + w.signature()}
			w.set(webhook.HeaderSignature, "v1,AAAA")
		}, verdict.Valid, "right"},
		{"lines that were joined, the first fits", func(w *world) { w.set(webhook.HeaderSignature, "v1,"+w.signature()+", v1,AAAA") }, verdict.Valid, "right"},
		{"lines that were joined, the last fits", func(w *world) { w.set(webhook.HeaderSignature, "v1,AAAA,\tv1,"+w.signature()) }, verdict.Valid, "right"},
		{"another kind of space between them", func(w *world) { w.set(webhook.HeaderSignature, "v1,AAAA\u00a0v1,"+w.signature()) }, verdict.MalformedSignature, "commas"},
		{"no scheme", func(w *world) { w.set(webhook.HeaderSignature, w.signature()) }, verdict.MalformedSignature, `"v1,"`},
		{"GitHub's form", func(w *world) { w.set(webhook.HeaderSignature, "sha256="+hex.EncodeToString(raw(w))) }, verdict.MalformedSignature, "another product"},
		{"another scheme only", func(w *world) { w.set(webhook.HeaderSignature, "v1a,"+w.signature()) }, verdict.MalformedSignature, "schemes"},
		{"commas", func(w *world) { w.set(webhook.HeaderSignature, "v1,"+w.signature()+",v1,x") }, verdict.MalformedSignature, "commas"},
		{"cut", func(w *world) { w.set(webhook.HeaderSignature, "v1,"+w.signature()[:30]) }, verdict.MalformedSignature, "cut"},

		{"hexadecimal", func(w *world) { w.set(webhook.HeaderSignature, "v1,"+hex.EncodeToString(raw(w))) }, verdict.WrongEncoding, "hexadecimal"},
		{"URL-safe, unpadded", func(w *world) { w.set(webhook.HeaderSignature, "v1,"+base64.RawURLEncoding.EncodeToString(raw(w))) }, verdict.WrongEncoding, "base64"},
		{"the secret's text", func(w *world) { w.sign([]byte(w.secret), body) }, verdict.WrongEncoding, "with whsec_, was taken for the key"},
		{"the base64's text", func(w *world) { w.sign([]byte(w.secret[6:]), body) }, verdict.WrongEncoding, "behind whsec_ was taken for the key"},

		{"line break", func(w *world) { w.Body = append(w.Body, '\n') }, verdict.AlteredBody, "line break at its end"},
		{"byte order mark", func(w *world) { w.Body = append([]byte("\xef\xbb\xbf"), w.Body...) }, verdict.AlteredBody, "byte order mark"},
		{"line breaks of Windows", func(w *world) {
			w.sign(w.key, "{\n\"a\":1\n}")
			w.Body = []byte("{\r\n\"a\":1\r\n}")
		}, verdict.AlteredBody, "Unix"},
		{"indented", func(w *world) {
			var b bytes.Buffer
			json.Indent(&b, w.Body, "", "  ")
			w.Body = b.Bytes()
		}, verdict.AlteredBody, "white space between"},
		{"escaped like PHP", func(w *world) { w.Body = bytes.ReplaceAll(w.Body, []byte("/"), []byte(`\/`)) }, verdict.AlteredBody, "slashes are not escaped"},
		{"escaped like Python", func(w *world) { w.Body = bytes.ReplaceAll(w.Body, []byte("ë"), []byte(`\u00eb`)) }, verdict.AlteredBody, "letters are not escaped"},
		{"read as Latin-1", func(w *world) { w.Body = bytes.ReplaceAll(w.Body, []byte("ë"), []byte("Ã«")) }, verdict.AlteredBody, "UTF-8"},
		{"sorted", func(w *world) {
			w.sign(w.key, `{"id":"x","type":"a","timestamp":"t","data":{"b":1}}`)
			w.Body = []byte(`{"data": {"b": 1}, "id": "x", "timestamp": "t", "type": "a"}`)
		}, verdict.AlteredBody, "order"},
		{"numbers rounded", func(w *world) { w.Body = rewritten(t, " ") }, verdict.AlteredBody, "written anew"},
		{"cut body", func(w *world) { w.Body = w.Body[:50]; w.set("Content-Length", strconv.Itoa(len(body))) }, verdict.AlteredBody, "50 are here"},
		{"no body", func(w *world) { w.Body = nil }, verdict.AlteredBody, "no body"},
		{"another event's body", func(w *world) { w.Body = bytes.Replace(w.Body, []byte(id), []byte("evt_x"), 1) }, verdict.AlteredBody, "another event"},
		{"a form", func(w *world) { w.Body = []byte("payload=%7B") }, verdict.AlteredBody, "not what Posthorn sends"},

		{"another secret", func(w *world) { w.Secrets = []string{webhook.NewSecret()} }, verdict.WrongSecret, "the secret is probably"},
		{"two other secrets", func(w *world) { w.Secrets = []string{webhook.NewSecret(), webhook.NewSecret()} }, verdict.WrongSecret, "each of the secrets"},
	} {
		w := newWorld(t)
		tc.spoil(w)
		v, err := verdict.Judge(w.Request)
		if err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		if v.Cause != tc.cause || !strings.Contains(v.Explanation, tc.says) {
			t.Errorf("%s: %s: %s; want %s, %q", tc.name, v.Cause, v.Explanation, tc.cause, tc.says)
		}
		if (v.Cause == verdict.Valid) != (v.Hint == "") {
			t.Errorf("%s: %s with the hint %q", tc.name, v.Cause, v.Hint)
		}
		for _, s := range append(w.Secrets, w.secret, w.signature()) {
			if len(s) > 9 && strings.Contains(v.Explanation+v.Hint, s[6:]) {
				t.Errorf("%s: the verdict holds a secret or a signature: %s", tc.name, v.Explanation)
			}
		}
		// What is valid here is so for the package that receivers use, and the reverse.
		verifier, err := webhook.NewVerifier(w.Secrets...)
		if err != nil {
			t.Fatal(err)
		}
		verifier.Now = func() time.Time { return w.Now }
		if got := verifier.Verify(w.Header, w.Body); (got == nil) != (v.Cause == verdict.Valid) {
			t.Errorf("%s: %s, and Verify says %v", tc.name, v.Cause, got)
		}
	}
}

// respelled is the headers with other names.
func respelled(h http.Header, spell func(string) string) http.Header {
	other := http.Header{}
	for name, values := range h {
		other[spell(name)] = values
	}
	return other
}

func TestSecretsThatAreNone(t *testing.T) {
	w := newWorld(t)
	for _, secrets := range [][]string{nil, {"whsec_"}, {w.secret, "hello"}} {
		w.Secrets = secrets
		if _, err := verdict.Judge(w.Request); !errors.Is(err, webhook.ErrSecret) {
			t.Errorf("%d secrets: %v", len(secrets), err)
		}
	}
}

// Whatever is changed, the verdict is valid exactly when Verify says so.
func TestTheVerdictIsVerifys(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 2000 {
		w := newWorld(t)
		for name, values := range w.Header {
			if v := []byte(values[0]); r.IntN(4) == 0 {
				v[r.IntN(len(v))] = byte(' ' + r.IntN(95))
				w.Header.Set(name, string(v))
			}
		}
		if r.IntN(4) == 0 {
			w.Body[r.IntN(len(w.Body))] = byte(r.IntN(256))
		}
		v, err := verdict.Judge(w.Request)
		if err != nil {
			t.Fatal(err)
		}
		verifier, _ := webhook.NewVerifier(w.secret)
		verifier.Now = func() time.Time { return now }
		if got := verifier.Verify(w.Header, w.Body); (got == nil) != (v.Cause == verdict.Valid) {
			t.Fatalf("%v %q: %s, and Verify says %v", w.Header, w.Body, v.Cause, got)
		}
	}
}
