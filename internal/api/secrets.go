package api

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"reflect"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/webhook"
)

const (
	// defaultOverlap and maxOverlap bound how long a former secret signs beside
	// the new one, in seconds.
	defaultOverlap = 86_400
	maxOverlap     = 604_800
	// maxSecrets bounds the secrets that sign at a time: each is a signature in a
	// header of bounded size.
	maxSecrets = 5
)

// Secrets are what an endpoint's deliveries are signed with.
type Secrets struct {
	Secret   string           `json:"secret" doc:"The current secret; its signature comes first."`
	Previous []PreviousSecret `json:"previous" doc:"Former secrets that sign too until they expire, newest first."`
}

// PreviousSecret is a former secret within its overlap.
type PreviousSecret struct {
	Secret    string `json:"secret"`
	ExpiresAt string `json:"expires_at" format:"date-time" doc:"From then on it does not sign."`
}

// SecretRotation is the body of POST …/secret/rotate.
type SecretRotation struct {
	OverlapSeconds field[int64]  `json:"overlap_seconds,omitempty" minimum:"0" maximum:"604800" doc:"How long the secret that was current signs too; 86400, a day, when left out. 0 ends all former secrets at once."`
	Secret         field[string] `json:"secret,omitempty" doc:"The new secret, when you bring your own: whsec_ and the standard padded base64 of 24 to 64 bytes. One is made when it is left out."`
}

func (s *server) secretOperations() []*operation {
	return []*operation{{
		id: "reveal-endpoint-secret", method: "GET", path: "/endpoints/{webhookId}/secret", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Reveal the signing secret",
		description: "Shows the secret and the former ones that still sign. That it was shown is audited.",
		success:     []success{{status: 200, doc: "The secrets.", model: reflect.TypeFor[answer[Secrets]]()}},
		failures:    []posthorn.Code{posthorn.NotFound},
		handle:      s.revealSecret,
	}, {
		id: "rotate-endpoint-secret", method: "POST", path: "/endpoints/{webhookId}/secret/rotate", tag: "Endpoints", scope: access.ScopeWrite,
		summary:     "Rotate the signing secret",
		description: "Makes or takes a new secret. Until the overlap ends deliveries carry a signature of each, the new one first. At most 5 secrets sign at a time. Send {} for the defaults.",
		body:        jsonBody[SecretRotation](`{"overlap_seconds": 3600}`),
		success:     []success{{status: 200, doc: "The secrets as they are now.", model: reflect.TypeFor[answer[Secrets]]()}},
		failures:    []posthorn.Code{posthorn.NotFound, posthorn.Conflict},
		handle:      s.rotateSecret,
	}}
}

func (s *server) revealSecret(q *request) (*reply, error) {
	ref, err := endpointRef(q)
	if err != nil {
		return nil, err
	}
	e, valid, err := s.Store.RevealSecrets(q.Context(), q.change(), q.tenant.ID, ref)
	if err != nil {
		return nil, missing(err, "endpoint")
	}
	keys, err := s.openSecrets(&e, valid)
	if err != nil {
		return nil, err
	}
	return secretsReply(keys, valid)
}

// openSecrets returns the keys of the secrets, in their order.
func (s *server) openSecrets(e *posthorn.Endpoint, sealed []store.Sealed) ([][]byte, error) {
	keys := make([][]byte, len(sealed))
	for i := range sealed {
		var err error
		if keys[i], err = s.Keyring.Open(sealed[i].KeyID, sealed[i].Box, secretBind(e.Tenant, e.ID)); err != nil {
			return nil, fmt.Errorf("api: open a secret of endpoint %s: %w", e.Ref, err)
		}
	}
	return keys, nil
}

func secretBind(tenant, endpoint int64) secretbox.Bind {
	return secretbox.Bind{Kind: SecretKind, Tenant: tenant, Endpoint: endpoint}
}

// secretsReply shows secrets, current first.
func secretsReply(keys [][]byte, sealed []store.Sealed) (*reply, error) {
	shown := Secrets{Previous: []PreviousSecret{}}
	for i, key := range keys {
		text := webhook.FormatSecret(key)
		if i == 0 {
			shown.Secret = text
			continue
		}
		shown.Previous = append(shown.Previous, PreviousSecret{Secret: text, ExpiresAt: posthorn.FormatTime(sealed[i].ExpiresAt)})
	}
	rep, err := ok(http.StatusOK, shown)
	rep.secret = true
	return rep, err
}

// readRotation returns the new key, nil for one that is to be made.
func readRotation(body []byte) (key []byte, overlap time.Duration, err error) {
	var r SecretRotation
	in, err := decode(body, &r)
	if err != nil {
		return nil, 0, err
	}
	seconds := int64(defaultOverlap)
	if r.OverlapSeconds.Set && in.sound("/overlap_seconds") {
		if seconds = r.OverlapSeconds.V; seconds < 0 || seconds > maxOverlap {
			in.fault("/overlap_seconds", "must be 0 to %d seconds (7 days)", maxOverlap)
		}
	}
	if r.Secret.Set && in.sound("/secret") {
		if key, err = webhook.ParseSecret(r.Secret.V); err != nil {
			in.fault("/secret", "is not %s", err)
		}
	}
	return key, time.Duration(seconds) * time.Second, in.err()
}

func (s *server) rotateSecret(q *request) (*reply, error) {
	ref, err := endpointRef(q)
	if err != nil {
		return nil, err
	}
	key, overlap, err := readRotation(q.body)
	if err != nil {
		// A foreign or unknown endpoint is unknown, whatever the body says.
		if _, err := s.endpoint(q); err != nil {
			return nil, err
		}
		return nil, err
	}
	if key == nil {
		key = make([]byte, 32)
		rand.Read(key) // never fails: the runtime ends the process instead
	}
	var rep *reply
	err = s.Store.ChangeSecrets(q.Context(), q.change(), q.tenant.ID, ref, func(e posthorn.Endpoint, valid []store.Sealed) ([]store.Sealed, error) {
		keys, err := s.openSecrets(&e, valid)
		if err != nil {
			return nil, err
		}
		keyID, box := s.Keyring.Seal(key, secretBind(e.Tenant, e.ID))
		keys, valid, err = rotated(keys, valid, key, store.Sealed{KeyID: keyID, Box: box, CreatedAt: q.at}, q.at.Add(overlap))
		if err != nil {
			return nil, err
		}
		if rep, err = secretsReply(keys, valid); err != nil {
			return nil, err
		}
		return valid, s.remember(q, rep)
	})
	if err != nil {
		return nil, missing(err, "endpoint")
	}
	return rep, nil
}

// rotated puts the next secret before those that sign now, and lets the current
// one end at the given time. A former secret that comes again is kept once. When
// the overlap is nothing, the former ones end with the current one: then a secret
// has leaked, and nobody knows which.
func rotated(keys [][]byte, valid []store.Sealed, key []byte, next store.Sealed, end time.Time) ([][]byte, []store.Sealed, error) {
	outKeys, out := [][]byte{key}, []store.Sealed{next}
	for i := range valid {
		old := valid[i]
		same := bytes.Equal(keys[i], key)
		if i == 0 {
			if same {
				return nil, nil, posthorn.Errorf(posthorn.Conflict, "This is the endpoint's secret already; give another one, or none to have one made.")
			}
			old.ExpiresAt = end
		}
		if same || end.Equal(next.CreatedAt) {
			continue
		}
		outKeys, out = append(outKeys, keys[i]), append(out, old)
	}
	if len(out) > maxSecrets {
		return nil, nil, posthorn.Errorf(posthorn.Conflict, "The endpoint has %d secrets that sign, as many as it may; wait until one of them expires, or end all former ones now with \"overlap_seconds\": 0.", maxSecrets)
	}
	return outKeys, out, nil
}
