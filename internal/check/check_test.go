package check_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/posthorn/posthorn/internal/check"
	"github.com/posthorn/posthorn/webhook"
)

// examine checks a receiver and returns the names of what is not ok.
func examine(t *testing.T, secret string, aim time.Duration, h http.Handler) (failed, warned []string, all []check.Finding) {
	t.Helper()
	server := httptest.NewServer(h)
	defer server.Close()
	target := check.Target{URL: server.URL + "/hooks", Secret: secret, Limit: 2 * time.Second, Aim: aim, Slowly: 50 * time.Millisecond}
	err := check.Run(t.Context(), target, func(f check.Finding) {
		all = append(all, f)
		switch f.Grade {
		case check.Failed:
			failed = append(failed, f.Check)
		case check.Warning:
			warned = append(warned, f.Check)
		}
		if strings.Contains(f.Says, secret[6:]) {
			t.Errorf("%s tells the secret", f.Check)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return failed, warned, all
}

// flawed is a receiver that does everything by hand, and each thing wrongly if
// it is told to.
type flawed struct {
	secret string
	key    []byte

	trusting, unsignedToo, ageless, withoutID bool // what it lets in
	reserialises, onlyFirst, picky, prefix    bool // how it compares
	strictTypes, small, conflicts, anyMethod  bool // what it refuses, and does not
	redirects, crashes, fiveHundred           bool // how it answers
	delay                                     time.Duration

	mu   sync.Mutex
	seen map[string]bool
}

func (f *flawed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && !f.anyMethod {
		w.WriteHeader(405)
		return
	}
	limit := int64(1 << 20)
	if f.small {
		limit = 100 << 10
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		w.WriteHeader(413)
		return
	}
	if r.Method == http.MethodPost && !f.verify(r.Header, body) {
		if f.crashes {
			panic(http.ErrAbortHandler)
		}
		status := 401
		if f.fiveHundred {
			status = 500
		}
		w.WriteHeader(status)
		return
	}
	var e struct{ Type string }
	json.Unmarshal(body, &e)
	id := r.Header.Get("webhook-id")
	f.mu.Lock()
	again := f.seen[id]
	f.seen[id] = true
	f.mu.Unlock()
	switch {
	case f.redirects:
		http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect)
	case f.conflicts && again:
		w.WriteHeader(409)
	case f.strictTypes && e.Type != "webhooks.ping":
		w.WriteHeader(422)
	default:
		select {
		case <-time.After(f.delay):
		case <-r.Context().Done():
		}
		w.WriteHeader(204)
	}
}

func (f *flawed) verify(h http.Header, body []byte) bool {
	if f.trusting || f.unsignedToo && h.Get("webhook-signature") == "" {
		return true
	}
	if f.reserialises {
		var v any
		if json.Unmarshal(body, &v) != nil {
			return false
		}
		s := v.(map[string]any)
		data, _ := json.Marshal(s["data"])
		body = []byte(`{"id":"` + s["id"].(string) + `","type":"` + s["type"].(string) + `","timestamp":"` + s["timestamp"].(string) + `","data":` + string(data) + `}`)
	}
	id, stamp, signatures := h.Get("webhook-id"), h.Get("webhook-timestamp"), strings.Fields(h.Get("webhook-signature"))
	sent, err := time.ParseDuration(stamp + "s")
	at := time.Unix(int64(sent.Seconds()), 0)
	if off := time.Since(at).Abs(); err != nil || !f.ageless && off > 5*time.Minute {
		return false
	}
	if f.withoutID {
		id = f.sentID(body)
	}
	want := string(webhook.Sign(nil, id, at, body, f.key))
	if f.onlyFirst && len(signatures) > 0 {
		signatures = signatures[:1]
	}
	if f.picky && strings.Contains(h.Get("webhook-signature"), "v1a,") {
		return false
	}
	return slices.ContainsFunc(signatures, func(s string) bool {
		return s == want || f.prefix && strings.HasPrefix(want, s)
	})
}

// sentID takes the id from the body instead of the header.
func (f *flawed) sentID(body []byte) string {
	var e struct{ ID string }
	json.Unmarshal(body, &e)
	return e.ID
}

func TestBadReceiversAreCaught(t *testing.T) {
	for name, tc := range map[string]struct {
		flaw           func(*flawed)
		failed, warned []string
	}{
		"does all well": {func(*flawed) {}, nil, nil},
		"verifies nothing": {func(f *flawed) { f.trusting = true },
			[]string{"forged", "wrong-secret", "cut", "unsigned", "tampered", "other-id", "stale", "early"}, nil},
		"verifies what it wrote anew": {func(f *flawed) { f.reserialises = true }, []string{"verbatim"}, nil},
		"ignores the time":            {func(f *flawed) { f.ageless = true }, []string{"stale", "early"}, nil},
		"reads one signature only":    {func(f *flawed) { f.onlyFirst = true }, []string{"two-signatures", "other-scheme"}, nil},
		"refuses unknown schemes":     {func(f *flawed) { f.picky = true }, []string{"other-scheme"}, nil},
		"compares a part":             {func(f *flawed) { f.prefix = true }, []string{"cut"}, nil},
		"takes the id from the body":  {func(f *flawed) { f.withoutID = true }, []string{"other-id"}, nil},
		"lets the unsigned in":        {func(f *flawed) { f.unsignedToo = true }, []string{"unsigned"}, nil},
		"refuses unknown types":       {func(f *flawed) { f.strictTypes = true }, []string{"unknown-type"}, nil},
		"refuses repeated events":     {func(f *flawed) { f.conflicts = true }, []string{"repeated"}, nil},
		"takes small bodies only":     {func(f *flawed) { f.small = true }, []string{"large"}, nil},
		"redirects":                   {func(f *flawed) { f.redirects = true }, []string{"good"}, nil},
		"hangs":                       {func(f *flawed) { f.delay = time.Minute }, []string{"good"}, nil},
		"is slow":                     {func(f *flawed) { f.delay = 150 * time.Millisecond }, nil, []string{"good", "repeated", "two-signatures", "other-scheme", "unknown-type", "verbatim", "large", "slow"}},
		"fails on what is forged":     {func(f *flawed) { f.fiveHundred = true }, nil, []string{"forged", "wrong-secret", "cut", "unsigned", "tampered", "other-id", "stale", "early"}},
		"breaks off what is forged":   {func(f *flawed) { f.crashes = true }, nil, []string{"forged", "wrong-secret", "cut", "unsigned", "tampered", "other-id", "stale", "early"}},
		"takes any method":            {func(f *flawed) { f.anyMethod = true }, nil, []string{"get"}},
		"has another secret":          {func(f *flawed) { f.key = []byte(strings.Repeat("k", 32)) }, []string{"good"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &flawed{secret: webhook.NewSecret(), seen: map[string]bool{}}
			f.key, _ = webhook.ParseSecret(f.secret)
			tc.flaw(f)
			aim := 2 * time.Second
			if f.delay > 0 {
				aim = 100 * time.Millisecond
			}
			failed, warned, all := examine(t, f.secret, aim, f)
			if !slices.Equal(failed, tc.failed) || !slices.Equal(warned, tc.warned) {
				t.Errorf("failed %q, warned %q\nwant   %q, warned %q\n%+v", failed, warned, tc.failed, tc.warned, all)
			}
			if slices.Contains(failed, "good") != (all[1].Grade == check.Skipped) {
				t.Errorf("after a good request that is not acknowledged: %+v", all[1])
			}
		})
	}
}

func TestGoodReceiversPass(t *testing.T) {
	secret := webhook.NewSecret()
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	calls := map[string]int{}
	ours := (&webhook.Receiver{Verifier: verifier}).Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := webhook.FromContext(r.Context())
		if calls[e.ID]++; !e.Test {
			t.Errorf("%s is not marked as a test", e.ID)
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	official, err := standard.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	theirs := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil || official.Verify(body, r.Header) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.WriteHeader(http.StatusOK)
	})
	for name, h := range map[string]http.Handler{"ours": ours, "the official library": theirs} {
		failed, warned, all := examine(t, secret, 2*time.Second, h)
		if len(failed)+len(warned) > 0 || len(all) < 15 {
			t.Errorf("%s: %+v", name, all)
		}
	}
	for id, n := range calls {
		if n != 1 {
			t.Errorf("%s was handled %d times", id, n)
		}
	}
	if len(calls) != 8 {
		t.Errorf("%d events were handled", len(calls))
	}
}

func TestTargetsThatAreNone(t *testing.T) {
	for _, target := range []check.Target{
		{URL: "ftp://x", Secret: webhook.NewSecret()}, {URL: "localhost:3000", Secret: webhook.NewSecret()}, {URL: "https://u:p@x.example", Secret: webhook.NewSecret()}, {URL: "http://127.0.0.1", Secret: "x"},
	} {
		if err := check.Run(t.Context(), target, func(check.Finding) { t.Error("something was sent") }); err == nil {
			t.Errorf("%q", target.URL)
		}
	}
	server := httptest.NewServer(nil)
	server.Close()
	n := 0
	target := check.Target{URL: server.URL, Secret: webhook.NewSecret()}
	err := check.Run(t.Context(), target, func(f check.Finding) {
		if n++; n == 1 && (f.Grade != check.Failed || !strings.Contains(f.Says, "refused")) {
			t.Errorf("%+v", f)
		}
	})
	if err != nil || n < 15 {
		t.Errorf("%d findings, %v", n, err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := check.Run(ctx, target, func(check.Finding) { t.Error("something was found") }); !errors.Is(err, why) {
		t.Error(err)
	}
}
