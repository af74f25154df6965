package access

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// minRSABits is what RFC 7518, section 3.3 asks for.
const minRSABits = 2048

// readKeys reads a JSON Web Key Set (RFC 7517): the public keys in it that
// signatures may be made with. Others are left out, as its section 5 asks.
func readKeys(body []byte) ([]jose.JSONWebKey, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// Members that differ in case, or come twice, are the provider's affair here.
	if err := json.Unmarshal(body, &set, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, errors.New("what came is no JSON Web Key Set")
	}
	if len(set.Keys) > maxKeys {
		return nil, fmt.Errorf("there are %d; at most %d are taken", len(set.Keys), maxKeys)
	}
	keys := []jose.JSONWebKey{}
	for _, raw := range set.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) == nil && signs(&k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("there is none that signs: RSA of 2048 bits or more, P-256, P-384, P-521 or Ed25519, with use sig")
	}
	return keys, nil
}

func signs(k *jose.JSONWebKey) bool {
	if !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return key.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey, ed25519.PublicKey:
		return true
	}
	return false // a symmetric one, published: anybody has it
}

// holds reports whether the key is among the keys, by what it is and not by its id.
func holds(keys []jose.JSONWebKey, k *jose.JSONWebKey) bool {
	print, err := k.Thumbprint(crypto.SHA256)
	if err != nil {
		return false
	}
	for i := range keys {
		if other, err := keys[i].Thumbprint(crypto.SHA256); err == nil && bytes.Equal(print, other) {
			return true
		}
	}
	return false
}
