package app

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/tally"
	"github.com/posthorn/posthorn/webhook"
)

// verifying is a receiver that knows its endpoints' secrets by their paths and
// counts what verifies and what does not.
type verifying struct {
	*httptest.Server
	mu        sync.Mutex
	verifiers map[string]*webhook.Verifier
	headers   map[string][2]string // name and value, by path
	good, bad int
}

func newVerifying(t *testing.T) *verifying {
	v := &verifying{verifiers: map[string]*webhook.Verifier{}, headers: map[string][2]string{}}
	v.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v.mu.Lock()
		defer v.mu.Unlock()
		if known := v.verifiers[r.URL.Path]; known != nil && known.Verify(r.Header, body) == nil && r.Header.Get(v.headers[r.URL.Path][0]) == v.headers[r.URL.Path][1] {
			v.good++
		} else {
			v.bad++
		}
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *verifying) trust(t *testing.T, path, secret string) {
	t.Helper()
	known, err := webhook.NewVerifier(secret)
	if err != nil {
		t.Fatal(err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verifiers[path] = known
}

// wantHeader makes a request without the header one that does not verify.
func (v *verifying) wantHeader(path, name, value string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.headers[path] = [2]string{name, value}
}

func (v *verifying) counts() (good, bad int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.good, v.bad
}

// request sends JSON with a token and an Idempotency-Key, if there is one.
func (s *service) request(t *testing.T, token, method, path, body, key string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.base+"/v2.3/webhooks"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// between returns what stands between two texts.
func between(text, before, after string) string {
	_, rest, _ := strings.Cut(text, before)
	found, _, _ := strings.Cut(rest, after)
	return found
}

// keysInUse counts the boxes of the file by the key that sealed them.
func keysInUse(t *testing.T, path string) map[string]int {
	t.Helper()
	s, err := OpenStore(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	boxes, err := s.Boxes(t.Context(), store.Box{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]int{}
	for _, b := range boxes {
		if b.Kind == store.BoxAnswer {
			b.KeyID, _, _ = secretbox.Unpack(b.Sealed)
		}
		used[b.KeyID]++
	}
	return used
}

// The whole way of an operator who changes the key, with a service that goes on
// delivering meanwhile: at its end the old key is gone and everything opens.
func TestEncryptionKeysAreRotatedInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	old, fresh := secretbox.Generate("k1"), secretbox.Generate("k2")
	receiver := newVerifying(t)
	const endpoints = 5
	create := func(s *service, token, name string) string {
		status, _, body := s.request(t, token, "POST", "/endpoints", `{"url":"`+receiver.URL+"/"+name+`","events":["cases.*"]}`, "key-"+name)
		if status != http.StatusCreated {
			t.Fatalf("%d %s", status, body)
		}
		receiver.trust(t, "/"+name, between(body, `"secret":"`, `"`))
		return body
	}
	sent := 0
	publish := func(s *service, token string, each int) {
		t.Helper()
		for range 10 {
			if status, _, body := s.request(t, token, "POST", "/events", `{"type":"cases.closed","data":{}}`, ""); status != http.StatusAccepted {
				t.Fatalf("%d %s", status, body)
			}
			sent += each
		}
		eventually(t, "everything verified", func() bool { good, bad := receiver.counts(); return good >= sent || bad > 0 })
		if good, bad := receiver.counts(); good != sent || bad != 0 {
			t.Fatalf("%d verified, %d not; want %d", good, bad, sent)
		}
	}

	s := serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+old)
	token := s.token(t, "acme")
	answers := map[string]string{}
	for i := range endpoints {
		name := string(rune('a' + i))
		answers[name] = create(s, token, name)
	}
	// One has a header, whose value opens nowhere else.
	receiver.wantHeader("/a", "X-Key", "value")
	if status, _, body := s.request(t, token, "PATCH", "/endpoints/"+between(answers["a"], `"id":"`, `"`)+"/settings", `{"headers":{"X-Key":"value"}}`, ""); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	publish(s, token, endpoints)
	// The service that runs could not open what the new key seals.
	if _, _, err := RotateKeys(t.Context(), path, fresh+","+old); posthorn.ErrorCode(err) != posthorn.Conflict {
		t.Fatalf("rotated before the service has the key: %v", err)
	}
	if used := keysInUse(t, path); used["k1"] != 2*endpoints+1 || len(used) != 1 {
		t.Fatalf("a refused rotation changed something: %v", used)
	}
	stop(t, s)

	s = serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+fresh+","+old)
	answers["new"] = create(s, token, "new")
	if used := keysInUse(t, path); used["k2"] != 2 {
		t.Errorf("a new secret is sealed by another key than the first: %v", used)
	}
	publish(s, token, endpoints+1)
	if _, _, err := RotateKeys(t.Context(), path, secretbox.Generate("k2")+","+old); posthorn.ErrorCode(err) != posthorn.Invalid {
		t.Fatalf("rotated with another key of the same id: %v", err)
	}
	rotateBeside(t, path, fresh+","+old, endpoints, func() { publish(s, token, endpoints+1) })
	if used := keysInUse(t, path); used["k2"] != 2*endpoints+3 || len(used) != 1 {
		t.Errorf("after the rotation %v are in use", used)
	}
	publish(s, token, endpoints+1)
	stop(t, s)

	s = serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+fresh)
	publish(s, token, endpoints+1)
	for name, before := range answers {
		status, h, body := s.request(t, token, "POST", "/endpoints", `{"url":"`+receiver.URL+"/"+name+`","events":["cases.*"]}`, "key-"+name)
		if status != http.StatusCreated || body != before || h.Get("Idempotent-Replayed") != "true" {
			t.Errorf("the answer remembered for %s is %d %s", name, status, body)
		}
	}
	if strings.Contains(s.log.String(), "cannot open") {
		t.Errorf("something does not open with the new key alone:\n%s", s.log)
	}
	tally.Count(t, "encryption keys rotate in place; everything opens without the old one", sent+len(answers))
}

// rotateBeside runs two rotations at once beside a busy service, and a third.
func rotateBeside(t *testing.T, path, keys string, want int, busy func()) {
	t.Helper()
	type counts struct {
		secrets, answers int
		err              error
	}
	results := make(chan counts, 2)
	for range 2 {
		go func() {
			var c counts
			c.secrets, c.answers, c.err = RotateKeys(t.Context(), path, keys)
			results <- c
		}()
	}
	busy()
	a, b := <-results, <-results
	if a.err != nil || b.err != nil || a.secrets+b.secrets != want+1 || a.answers+b.answers != want {
		t.Errorf("two rotations at once did %+v and %+v, want %d secrets, a header and %[3]d answers in all", a, b, want)
	}
	if secrets, answers, err := RotateKeys(t.Context(), path, keys); secrets+answers != 0 || err != nil {
		t.Errorf("one more did %d and %d, %v", secrets, answers, err)
	}
}

func stop(t *testing.T, s *service) {
	t.Helper()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
}

// What a lost key has sealed stays as it was; the rest is sealed anew, and the
// operator is told.
func TestARotationWithoutTheOldKeyLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "posthorn.db")
	old, fresh := secretbox.Generate("k1"), secretbox.Generate("k2")
	s := serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+old)
	token := s.token(t, "acme")
	s.request(t, token, "POST", "/endpoints", `{"url":"http://127.0.0.1:1/","events":["cases.*"]}`, "")
	stop(t, s)
	stop(t, serveStore(t, path, "POSTHORN_ENCRYPTION_KEYS="+fresh))
	secrets, _, err := RotateKeys(t.Context(), path, fresh)
	if secrets != 0 || err == nil || !strings.Contains(err.Error(), `the key with the id "k1"`) {
		t.Errorf("%d sealed anew, %v", secrets, err)
	}
	if used := keysInUse(t, path); used["k1"] != 1 {
		t.Errorf("%v", used)
	}
}

// A key that has a known id and other bytes would open nothing: the service says
// so before it starts.
func TestAKeyThatIsAnotherOneIsRefusedAtTheStart(t *testing.T) {
	s := serveForTest(t)
	stop(t, s)
	soon, end := context.WithTimeout(t.Context(), 5*time.Second) // or it would serve for ever
	defer end()
	err := Serve(soon, loadServe(t, s.path, "POSTHORN_ENCRYPTION_KEYS="+secretbox.Generate("k1")), io.Discard, io.Discard)
	if posthorn.ErrorCode(err) != posthorn.Invalid || !strings.Contains(err.Error(), "The key k1") {
		t.Errorf("it started, or says %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Serve(ctx, loadServe(t, s.path, "POSTHORN_ENCRYPTION_KEYS="+secretbox.Generate("k2")), io.Discard, io.Discard); posthorn.ErrorCode(err) == posthorn.Invalid {
		t.Errorf("a new key under its own id is refused: %v", err)
	}
}
