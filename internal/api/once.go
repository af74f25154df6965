package api

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
)

// onceFor is how long an Idempotency-Key is remembered.
const onceFor = 24 * time.Hour

// maxKey bounds an Idempotency-Key, in bytes.
const maxKey = 255

// answerOnce runs the operation. A POST with an Idempotency-Key takes effect
// once: its answer is committed together with what it did, and given again to
// whoever sends the same request with the same key.
func (s *server) answerOnce(q *request) (*reply, error) {
	if q.Method != http.MethodPost {
		return q.op.handle(q)
	}
	key, err := idempotencyKey(q.Header["Idempotency-Key"])
	if err != nil {
		return nil, err
	}
	if key == "" {
		return q.op.handle(q)
	}
	q.once = &store.Once{
		Tenant: q.tenant.ID, Route: q.op.method + " " + q.op.path, Key: key,
		Hash: contentHash(q), Expires: q.at.Add(onceFor),
	}
	if q.op.reach == ofPlatform {
		// A remembered answer may show a token, and another platform token may be
		// allowed less than the one that asked.
		q.once.Route += " " + q.principal.TokenRef
	}
	// A publisher's tenant may still be unknown: the token keeps the claims of
	// different publishers apart until it is.
	claim := runningKey{token: q.principal.TokenRef, tenant: q.tenant.ID, route: q.once.Route, key: key}
	if q.op.reach != ofPublisher {
		claim.token = ""
	}
	if !s.running.begin(claim) {
		return nil, posthorn.Errorf(posthorn.Conflict, "A request with this Idempotency-Key is being worked on; wait for its answer, or repeat this one later.")
	}
	defer s.running.end(claim)
	if q.op.reach != ofPublisher || q.tenant.ID != 0 {
		if err := s.Store.LookupOnce(q.Context(), *q.once, q.at); err != nil {
			return s.repeated(q, err)
		}
	}
	rep, err := q.op.handle(q)
	if err != nil {
		return s.repeated(q, err)
	}
	return rep, nil
}

// repeated turns the store's word that the request was seen before into the
// answer given then. Other errors stay as they are.
func (s *server) repeated(q *request, err error) (*reply, error) {
	r, ok := errors.AsType[*store.ErrRepeated](err)
	if !ok {
		return nil, err
	}
	return s.openAnswer(q.once.Tenant, r.Answer)
}

// idempotencyKey reads the header, quoted as the draft has it or bare as most
// clients send it; empty when it is not there.
func idempotencyKey(values []string) (string, error) {
	if len(values) == 0 {
		return "", nil
	}
	key := strings.TrimSpace(values[0])
	if len(key) >= 2 && key[0] == '"' && key[len(key)-1] == '"' {
		key = key[1 : len(key)-1]
	}
	clean := key != "" && len(key) <= maxKey
	for i := 0; i < len(key); i++ {
		if c := key[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			clean = false
		}
	}
	if !clean {
		return "", posthorn.Errorf(posthorn.Malformed, "Idempotency-Key must be there once, with 1 to %d visible ASCII characters other than quotes and backslashes.", maxKey)
	}
	return key, nil
}

// contentHash tells requests apart that come with the same key.
func contentHash(q *request) [32]byte {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n%s\n", q.URL.RequestURI(), q.contentType)
	if binaryCloudEvent(q.Request) {
		hashAttributes(h, q.Header)
	}
	h.Write(q.body)
	return [32]byte(h.Sum(nil))
}

// storedAnswer is what is kept of a reply.
type storedAnswer struct {
	Status   int    `json:"status"`
	Location string `json:"location,omitempty"`
	ETag     string `json:"etag,omitempty"`
	Secret   bool   `json:"secret,omitempty"`
	Body     []byte `json:"body,omitempty"`
}

// remember puts the reply beside the change that is about to be committed. It
// is sealed, for it may hold a secret.
func (s *server) remember(q *request, r *reply) error {
	if q.once == nil {
		return nil
	}
	sealed, err := s.sealAnswer(q.once.Tenant, r)
	q.once.Answer = sealed
	return err
}

func answerBind(tenant int64) secretbox.Bind {
	return secretbox.Bind{Kind: AnswerKind, Tenant: tenant}
}

func (s *server) sealAnswer(tenant int64, r *reply) ([]byte, error) {
	plain, err := json.Marshal(storedAnswer{Status: r.status, Location: r.location, ETag: r.etag, Secret: r.secret, Body: r.body})
	if err != nil {
		return nil, fmt.Errorf("api: remember an answer: %w", err)
	}
	return secretbox.Pack(s.Keyring.Seal(plain, answerBind(tenant))), nil
}

func (s *server) openAnswer(tenant int64, sealed []byte) (*reply, error) {
	keyID, box, ok := secretbox.Unpack(sealed)
	if !ok {
		return nil, errors.New("api: a remembered answer is damaged")
	}
	plain, err := s.Keyring.Open(keyID, box, answerBind(tenant))
	if err != nil {
		return nil, fmt.Errorf("api: open a remembered answer: %w", err)
	}
	var a storedAnswer
	if err := json.Unmarshal(plain, &a); err != nil {
		return nil, fmt.Errorf("api: read a remembered answer: %w", err)
	}
	return &reply{status: a.Status, location: a.Location, etag: a.ETag, secret: a.Secret, body: a.Body, repeated: true}, nil
}

// running are the keys of requests that have no answer yet. Another node may
// work on the same key at the same time; then the store lets one of them win.
type running struct {
	mu   sync.Mutex
	keys map[runningKey]struct{}
}

type runningKey struct {
	token      string
	tenant     int64
	route, key string
}

func (r *running) begin(k runningKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, busy := r.keys[k]; busy {
		return false
	}
	if r.keys == nil {
		r.keys = make(map[runningKey]struct{})
	}
	r.keys[k] = struct{}{}
	return true
}

func (r *running) end(k runningKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.keys, k)
}
