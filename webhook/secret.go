package webhook

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"strings"
)

const (
	secretPrefix = "whsec_"

	// Key sizes that Standard Webhooks 1.0 allows, in bytes.
	minKey, maxKey = 24, 64
	newKey         = 32
)

// ErrSecret is returned for a text that is not a signing secret.
var ErrSecret = errors.New(`a signing secret is "whsec_" and the standard padded base64 of 24 to 64 bytes`)

// strict refuses what a second text could also decode to.
var strict = base64.StdEncoding.Strict()

// ParseSecret returns the key that a secret stands for. It accepts only what
// every Standard Webhooks library reads as the same key: the prefix, the
// standard alphabet with padding, 24 to 64 bytes, no line breaks. All else is
// [ErrSecret], which does not repeat the secret.
func ParseSecret(s string) (key []byte, err error) {
	text, ok := strings.CutPrefix(s, secretPrefix)
	if !ok || len(text) > base64.StdEncoding.EncodedLen(maxKey) {
		return nil, ErrSecret
	}
	key, err = strict.DecodeString(text)
	if err != nil || len(key) < minKey || len(key) > maxKey || FormatSecret(key) != s {
		return nil, ErrSecret
	}
	return key, nil
}

// FormatSecret is the reverse of [ParseSecret]. It does not check the length.
func FormatSecret(key []byte) string {
	return secretPrefix + base64.StdEncoding.EncodeToString(key)
}

// NewSecret returns a secret of 32 bytes from the system's random generator.
func NewSecret() string {
	key := make([]byte, newKey)
	rand.Read(key) // never fails: crypto/rand ends the process rather than give weak bytes
	return FormatSecret(key)
}
