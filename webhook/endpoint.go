package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"
)

// endpoint is one endpoint that a receiver serves.
type endpoint struct {
	name string
	keys [][]byte
	// spaces name the ids of each key, see [space].
	spaces []string
}

// newEndpoint returns [ErrSecret] when a secret is malformed or there is none.
func newEndpoint(name string, secrets []string) (*endpoint, error) {
	if len(secrets) == 0 {
		return nil, fmt.Errorf("no secret was given: %w", ErrSecret)
	}
	e := &endpoint{name: name}
	for i, s := range secrets {
		key, err := ParseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(secrets), err)
		}
		if named := space(key); !slices.Contains(e.spaces, named) {
			e.keys, e.spaces = append(e.keys, key), append(e.spaces, named)
		}
	}
	return e, nil
}

// space names the ids that are signed with a key. It tells nothing of the key, and is
// the same in every process and after a restart. No webhook's signature is made of this
// text, since it holds no dots.
func space(key []byte) string {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte("posthorn webhook ids"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:12])
}

// names are what an id is remembered as: "space.id" for each secret. While a secret is
// rotated an event that came with the old one is known when it comes with the new one,
// also to a process that has the new one only.
func (e *endpoint) names(id string) []string {
	all := make([]string, len(e.spaces))
	for i, space := range e.spaces {
		all[i] = space + "." + id
	}
	return all
}

// signed reports whether one of the signatures is made with one of the keys.
func (e *endpoint) signed(given []string, id string, at time.Time, body []byte) bool {
	matched := false
	for _, key := range e.keys {
		want := Sign(make([]byte, 0, len(id)+32+signatureLength), id, at, body, key)
		for _, signature := range given {
			// hmac.Equal compares lengths too: an empty or cut signature fails.
			if hmac.Equal([]byte(signature), want) {
				matched = true
			}
		}
	}
	return matched
}
