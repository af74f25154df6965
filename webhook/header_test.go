package webhook_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/webhook"
)

// Frameworks and gateways spell, repeat and join headers as they like.
func TestHeadersAreFoundHoweverTheyCome(t *testing.T) {
	good := string(webhook.Sign(nil, id, sent, body, mustKey(t, secret)))
	other := string(webhook.Sign(nil, id, sent, body, mustKey(t, webhook.NewSecret())))
	stamp := strconv.FormatInt(sent.Unix(), 10)
	const canonicalID, canonicalTime, canonicalSignature = "Webhook-Id", "Webhook-Timestamp", "Webhook-Signature"
	named := func(id1, time1, signature string) http.Header {
		return http.Header{id1: {id}, time1: {stamp}, signature: {good}}
	}
	lines := func(values ...string) http.Header {
		return http.Header{canonicalID: {id}, canonicalTime: {stamp}, canonicalSignature: values}
	}
	and := func(h http.Header, name string, values ...string) http.Header {
		h[name] = values
		return h
	}
	for _, tc := range []struct {
		name string
		h    http.Header
		want error
	}{
		{"as net/http writes them", named(canonicalID, canonicalTime, canonicalSignature), nil},
		{"as HTTP/2 writes them", named("webhook-id", "webhook-timestamp", "webhook-signature"), nil},
		{"in upper case", named("WEBHOOK-ID", "WEBHOOK-TIMESTAMP", "WEBHOOK-SIGNATURE"), nil},
		{"each in another case", named("webhook-ID", "Webhook-timestamp", "wEbHoOk-SiGnAtUrE"), nil},
		{"an empty list beside it", and(lines(good), "webhook-id"), nil},

		{"another id in another case", and(lines(good), "webhook-id", "other"), webhook.ErrRepeatedHeader},
		{"the same id in another case", and(lines(good), "WEBHOOK-ID", id), webhook.ErrRepeatedHeader},
		{"an empty id in another case", and(lines(good), "webhook-Id", ""), webhook.ErrRepeatedHeader},
		{"another time in another case", and(lines(good), "webhook-timestamp", "1"), webhook.ErrRepeatedHeader},
		{"two ids, none as net/http writes it", and(and(named("webhook-id", canonicalTime, canonicalSignature), "WEBHOOK-ID", "x"), "x", "y"), webhook.ErrRepeatedHeader},
		{"a letter that only folds to k", named("webhoo\u212a-id", canonicalTime, canonicalSignature), webhook.ErrNoHeaders},
		{"an underscore", named("webhook_id", canonicalTime, canonicalSignature), webhook.ErrNoHeaders},
		{"a space before it", named(" webhook-id", canonicalTime, canonicalSignature), webhook.ErrNoHeaders},

		{"two lines, the first fits", lines(good, other), nil},
		{"two lines, the second fits", lines(other, good), nil},
		{"three lines, one empty, one of two", lines("", other+" "+good, "v1a,x"), nil},
		{"a line in another case fits", and(lines(other), "webhook-signature", good), nil},
		{"a line in another case does not fit", and(lines(good), "webhook-signature", other), nil},
		{"lines that were joined, the first fits", lines(good + ", " + other), nil},
		{"lines that were joined, the last fits", lines(other + ", " + good), nil},
		{"lines that were joined, the middle one fits", lines(other + ", " + good + ",\t" + other), nil},
		{"spaces around them", lines("  " + other + "  \t" + good + " "), nil},
		{"a signature over two lines", lines(good[:20], good[20:]), webhook.ErrSignature},
		{"none of many lines fits", lines(other, other, "v1a,"+good[3:]), webhook.ErrSignature},
		{"lines of nothing", lines("", " ", "\t"), webhook.ErrNoHeaders},
	} {
		v := verifier(t, secret)
		v.Now = sentAt
		if err := v.Verify(tc.h, body); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.want)
		}
	}
}

// What a Receiver reads of headers it finds in any case, too.
func TestAnEventsHeadersAreFoundInAnyCase(t *testing.T) {
	for _, spell := range []func(string) string{strings.ToLower, strings.ToUpper, http.CanonicalHeaderKey, func(s string) string { return s[:9] + strings.ToUpper(s[9:]) }} {
		r := post(t, "evt_1", eventBody, secret)
		r.Header.Set("posthorn-delivery", "dlv_1")
		r.Header.Set("posthorn-attempt", "2")
		r.Header.Set("posthorn-test", "true")
		for name, v := range r.Header.Clone() {
			delete(r.Header, name)
			r.Header[spell(name)] = v
		}
		var e *webhook.Event
		rc := &webhook.Receiver{Verifier: verifier(t, secret)}
		got := serve(rc.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { e = webhook.FromContext(r.Context()) })), r)
		if got.Code != 200 || e == nil || e.ID != "evt_1" || e.Delivery != "dlv_1" || e.Attempt != 2 || !e.Test {
			t.Errorf("%v: %d, %+v", r.Header, got.Code, e)
		}
	}
}

// One text can be put together of different ids, times and bodies if an id may hold a
// dot. So no such id is signed, and none is accepted, whoever signed it.
func TestIDsWithADotAreRefused(t *testing.T) {
	stamp := strconv.FormatInt(sent.Unix(), 10)
	key := mustKey(t, secret)
	v := verifier(t, secret)
	v.Now = sentAt
	for _, dotted := range []string{"evt.1", ".", "evt_1.", ".evt_1", "a.b.c", "evt_1." + stamp, "evt_1\u00e9.x"} {
		for name, got := range map[string][]byte{
			"Sign":     webhook.Sign([]byte("x"), dotted, sent, body, key, key),
			"SignWith": webhook.SignWith([]byte("x"), dotted, sent, body, webhook.NewSigner(key)),
		} {
			if string(got) != "x" {
				t.Errorf("%s signs the id %q: %s", name, dotted, got)
			}
		}
		stolen := officialSign(t, dotted, string(body))
		h := http.Header{webhook.HeaderID: {dotted}, webhook.HeaderTimestamp: {stamp}, webhook.HeaderSignature: {stolen}}
		if err := v.Verify(h, body); !errors.Is(err, webhook.ErrID) {
			t.Errorf("the id %q: %v", dotted, err)
		}
		r := post(t, "evt_1", eventBody, secret)
		r.Header.Set(webhook.HeaderID, dotted)
		var why error
		rc := &webhook.Receiver{Verifier: verifier(t, secret), Refused: func(_ *http.Request, err error) { why = err }}
		if got := serve(rc.Handler(http.NotFoundHandler()), r); got.Code != 401 || !errors.Is(why, webhook.ErrID) {
			t.Errorf("the id %q: %d, %v", dotted, got.Code, why)
		}
	}
	// A genuine signature, of evt_1 and a body that is no JSON, fits another message.
	if other := officialSign(t, "evt_1", stamp+"."+string(body)); other != officialSign(t, "evt_1."+stamp, string(body)) {
		t.Error("the test's own case is none")
	}
	for _, fine := range []string{"evt_1", "a-b", "1614265330", "a b", "é"} {
		h := request(string(webhook.Sign(nil, fine, sent, body, key)), sent)
		h.Set(webhook.HeaderID, fine)
		if err := v.Verify(h, body); err != nil {
			t.Errorf("the id %q: %v", fine, err)
		}
	}
}

// What comes of headers that are not signed is for logs. It cannot take the place of
// what is signed, and what is ambiguous is left out.
func TestWhatIsNotSigned(t *testing.T) {
	for _, tc := range []struct {
		name   string
		id     string
		header http.Header
		want   string
	}{
		{"nothing", "evt_1", nil, `evt_1 "" 0 false`},
		{"marked", "evt_1", http.Header{"Posthorn-Test": {"true"}, "Posthorn-Delivery": {"dlv_1"}, "Posthorn-Attempt": {"2"}}, `evt_1 "dlv_1" 2 true`},
		{"the mark of a test was taken away", "evt_test_1", nil, `evt_test_1 "" 0 true`},
		{"the mark of a test was changed", "evt_test_1", http.Header{"Posthorn-Test": {"false"}}, `evt_test_1 "" 0 true`},
		{"marked in two ways", "evt_1", http.Header{"Posthorn-Test": {"false"}, "posthorn-test": {"true"}}, `evt_1 "" 0 false`},
		{"marked otherwise", "evt_1", http.Header{"Posthorn-Test": {"1"}}, `evt_1 "" 0 false`},
		{"two deliveries", "evt_1", http.Header{"posthorn-delivery": {"dlv_1", "dlv_2"}}, `evt_1 "" 0 false`},
		{"an attempt below nothing", "evt_1", http.Header{"posthorn-attempt": {"-7"}}, `evt_1 "" 0 false`},
		{"an attempt beyond numbers", "evt_1", http.Header{"posthorn-attempt": {"99999999999999999999"}}, `evt_1 "" 0 false`},
		{"another type", "evt_1", http.Header{"Posthorn-Event-Type": {"cases.closed"}}, `evt_1 "" 0 false`},
	} {
		r := post(t, tc.id, eventBody, secret)
		for name, v := range tc.header {
			r.Header[name] = v
		}
		rc := &webhook.Receiver{Verifier: verifier(t, secret)}
		serve(rc.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			e := webhook.FromContext(r.Context())
			if got := fmt.Sprintf("%s %q %d %v", e.ID, e.Delivery, e.Attempt, e.Test); got != tc.want || e.Type != "cases.updated" || e.Endpoint != "" {
				t.Errorf("%s: %s %+v", tc.name, got, e)
			}
			io.WriteString(w, "ok")
		})), r)
	}
}
