package secretbox

import (
	"errors"
	"fmt"
	"strings"
)

// Kinds of the boxes of header values.
const (
	// headerKind is the older form: the value alone.
	headerKind = "header"
	// originKind is the present one: the origin that the value was set for, a line feed,
	// and the value.
	originKind = "header at origin"
)

// HeaderKinds are the kinds with which a header's box may open, the present one first.
var HeaderKinds = []string{originKind, headerKind}

// SealHeader encrypts the value of an endpoint's header for one origin, as
// [posthorn.Origin] writes it: to another one it must not be sent. Neither text may hold a line feed.
func (k *Keyring) SealHeader(value, origin string, tenant, endpoint int64) (keyID string, box []byte) {
	return k.Seal([]byte(origin+"\n"+value), Bind{Kind: originKind, Tenant: tenant, Endpoint: endpoint})
}

// OpenHeader decrypts a header's value, and returns the origin that it was set for: "" if
// the box is of the older form, which names none. Errors are those of [Keyring.Open].
func (k *Keyring) OpenHeader(keyID string, box []byte, tenant, endpoint int64) (value, origin string, err error) {
	b := Bind{Kind: originKind, Tenant: tenant, Endpoint: endpoint}
	plain, err := k.Open(keyID, box, b)
	if errors.Is(err, ErrForged) {
		b.Kind = headerKind
		plain, err = k.Open(keyID, box, b)
		return string(plain), "", err
	}
	if err != nil {
		return "", "", err
	}
	origin, value, found := strings.Cut(string(plain), "\n")
	if !found {
		return "", "", fmt.Errorf("%w: it names no origin", ErrForged)
	}
	return value, origin, nil
}

// OpenAny decrypts a box that may be of one of several kinds, and returns the Bind
// that fits. Errors are those of [Keyring.Open].
func (k *Keyring) OpenAny(keyID string, box []byte, b Bind, kinds ...string) (plain []byte, fits Bind, err error) {
	for _, b.Kind = range kinds {
		if plain, err = k.Open(keyID, box, b); !errors.Is(err, ErrForged) {
			break
		}
	}
	return plain, b, err
}
