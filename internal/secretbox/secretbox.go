// Package secretbox keeps endpoint secrets unreadable at rest. A secret is
// sealed with XChaCha20-Poly1305 under one of the operator's keys and bound to
// what it belongs to, so that a box copied to another row, kind or tenant does
// not open. Keys have ids: the first of the ring seals, all of it opens, which
// is how keys are rotated.
//
// A box is a nonce of 24 random bytes and the ciphertext with its tag. Random
// nonces of that size do not collide in any number of secrets that we may meet.
package secretbox

import (
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"strings"

	"golang.org/x/crypto/chacha20poly1305"
)

// EnvironmentVariable is where the operator's keys come from; errors name it.
const EnvironmentVariable = "POSTHORN_ENCRYPTION_KEYS"

const maxKeyID = 32

// Errors of [Keyring.Open], for errors.Is.
var (
	// ErrUnknownKey: the box was sealed with a key that is not in the ring.
	ErrUnknownKey = errors.New("secretbox: unknown encryption key")
	// ErrForged: the box was changed, belongs elsewhere, or the key has the right
	// id but other bytes.
	ErrForged = errors.New("secretbox: the box does not open")
)

// Bind says what a box belongs to. A box opens only with the Bind that it was
// sealed with.
type Bind struct {
	// Kind is what the box holds: "secret", "header", "answer".
	Kind             string
	Tenant, Endpoint int64
}

// Keyring holds the operator's keys. It is immutable and safe for concurrent
// use.
type Keyring struct {
	current string
	ciphers map[string]cipher.AEAD
	prints  map[string]int64
}

// ParseKeys reads "id:base64-of-32-bytes[,id:…]". The first key seals; all of
// them open. Errors name the place of the fault and the command that makes a
// key, and never hold key material.
func ParseKeys(spec string) (*Keyring, error) {
	if strings.TrimSpace(spec) == "" {
		return nil, fault("is empty")
	}
	ring := &Keyring{ciphers: make(map[string]cipher.AEAD), prints: make(map[string]int64)}
	for i, entry := range strings.Split(spec, ",") {
		id, text, found := strings.Cut(strings.TrimSpace(entry), ":")
		switch {
		case !found:
			return nil, fault(fmt.Sprintf("entry %d has no colon between id and key", i+1))
		case !ValidID(id):
			return nil, fault(fmt.Sprintf("entry %d has an id that is not 1 to %d letters, digits, _ or -", i+1, maxKeyID))
		}
		key, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil {
			return nil, fault(fmt.Sprintf("key %s (entry %d) is not standard base64 with padding", id, i+1))
		}
		if len(key) != chacha20poly1305.KeySize {
			return nil, fault(fmt.Sprintf("key %s (entry %d) has %d bytes, not %d", id, i+1, len(key), chacha20poly1305.KeySize))
		}
		if _, twice := ring.ciphers[id]; twice {
			return nil, fault(fmt.Sprintf("key id %s occurs twice; give each key an id of its own", id))
		}
		aead, err := chacha20poly1305.NewX(key)
		if err != nil {
			return nil, fault(fmt.Sprintf("key %s (entry %d) is unusable", id, i+1))
		}
		ring.ciphers[id], ring.prints[id] = aead, fingerprint(key)
		if i == 0 {
			ring.current = id
		}
	}
	return ring, nil
}

func fault(what string) error {
	return fmt.Errorf("%s: %s; it must be id:base64-of-32-bytes[,id:…]; `posthorn key generate` prints a fresh key", EnvironmentVariable, what)
}

// ValidID reports whether s may name a key: [A-Za-z0-9_-]{1,32}.
func ValidID(s string) bool {
	if s == "" || len(s) > maxKeyID {
		return false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && !('0' <= c && c <= '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// Generate returns a new key as [ParseKeys] reads it. The caller checks id with
// [ValidID].
func Generate(id string) string {
	var key [chacha20poly1305.KeySize]byte
	rand.Read(key[:]) // never fails: the runtime ends the process instead
	return id + ":" + base64.StdEncoding.EncodeToString(key[:])
}

// Current is the id of the key that seals.
func (k *Keyring) Current() string { return k.current }

// Fingerprints returns a number for each key of the ring, by id: two keys with
// the same id and other bytes have different ones, and no number tells of its key.
func (k *Keyring) Fingerprints() map[string]int64 { return maps.Clone(k.prints) }

func fingerprint(key []byte) int64 {
	h := hmac.New(sha256.New, key)
	h.Write([]byte("posthorn key fingerprint"))
	return int64(binary.BigEndian.Uint64(h.Sum(nil)))
}

// Pack writes a box and its key's id as one text of bytes, for what has no column
// for the id.
func Pack(keyID string, box []byte) []byte {
	packed := make([]byte, 0, 1+len(keyID)+len(box))
	packed = append(packed, byte(len(keyID)))
	packed = append(packed, keyID...)
	return append(packed, box...)
}

// Unpack reads what [Pack] wrote.
func Unpack(packed []byte) (keyID string, box []byte, ok bool) {
	if len(packed) == 0 || len(packed) <= int(packed[0]) {
		return "", nil, false
	}
	n := 1 + int(packed[0])
	keyID = string(packed[1:n])
	return keyID, packed[n:], ValidID(keyID) // what is no id may be anything, and errors show ids
}

// Seal encrypts plain with the current key. Two boxes of the same plain differ.
func (k *Keyring) Seal(plain []byte, b Bind) (keyID string, box []byte) {
	aead := k.ciphers[k.current]
	box = make([]byte, aead.NonceSize(), aead.NonceSize()+len(plain)+aead.Overhead())
	rand.Read(box)
	return k.current, aead.Seal(box, box, plain, b.additionalData(k.current))
}

// Open decrypts a box. It returns [ErrUnknownKey] or [ErrForged], wrapped in a
// sentence for the operator.
func (k *Keyring) Open(keyID string, box []byte, b Bind) ([]byte, error) {
	aead, known := k.ciphers[keyID]
	if !known {
		return nil, fmt.Errorf("%w: put the key with the id %q back into %s", ErrUnknownKey, keyID, EnvironmentVariable)
	}
	if len(box) < aead.NonceSize()+aead.Overhead() {
		return nil, fmt.Errorf("%w: it is too short", ErrForged)
	}
	nonce, sealed := box[:aead.NonceSize()], box[aead.NonceSize():]
	plain, err := aead.Open(nil, nonce, sealed, b.additionalData(keyID))
	if err != nil {
		return nil, fmt.Errorf("%w: it was changed, or the key with the id %q is another one than it was", ErrForged, keyID)
	}
	return plain, nil
}

// additionalData encodes the binding without ambiguity: fixed-size numbers
// first, then texts with their lengths. The leading line is the version.
func (b Bind) additionalData(keyID string) []byte {
	ad := make([]byte, 0, 64)
	ad = append(ad, "posthorn secretbox 1\n"...)
	ad = binary.BigEndian.AppendUint64(ad, uint64(b.Tenant))
	ad = binary.BigEndian.AppendUint64(ad, uint64(b.Endpoint))
	ad = binary.BigEndian.AppendUint32(ad, uint32(len(b.Kind)))
	ad = append(ad, b.Kind...)
	return append(ad, keyID...)
}
