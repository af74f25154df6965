// Package webhook signs webhooks and verifies them, after Standard Webhooks 1.0
// (https://www.standardwebhooks.com). Posthorn signs with it, and receivers may
// use it. A [Receiver] stands before an ordinary handler and does what every
// receiver should: it verifies the exact bytes, and handles each event once.
//
//	verifier, err := webhook.NewVerifier(os.Getenv("WEBHOOK_SECRET"))
//	…
//	receiver := &webhook.Receiver{Verifier: verifier}
//	http.Handle("/hooks", receiver.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
//		event := webhook.FromContext(r.Context())
//		…
//	})))
//
// Programs that read requests in another way call [Verify] or [Verifier.Verify]
// with the headers and the body as it came.
//
// A signature is the HMAC-SHA256 of "id.timestamp.body" over the exact bytes of
// the body: verify before parsing, and never re-encode. Other headers are not signed.
// The package depends on
// the standard library only.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// The headers of a signed request.
const (
	HeaderID        = "webhook-id"        // the same on each attempt: the receiver's idempotency key
	HeaderTimestamp = "webhook-timestamp" // Unix seconds of this attempt
	HeaderSignature = "webhook-signature" // one or more "v1,<base64>", separated by spaces
)

const scheme = "v1,"

// signatureLength is that of one "v1,<base64>".
const signatureLength = len(scheme) + (sha256.Size+2)/3*4

// Sign appends the value of the webhook-signature header to b: "v1,<base64>"
// for each key in the order given, separated by one space. Put the current key
// first and those that are being rotated out behind it; at counts to the second.
// It keeps no reference to its arguments.
//
// An id that holds a dot is refused: b comes back as it was, without a signature. Two
// messages could have the same one.
func Sign(b []byte, id string, at time.Time, body []byte, keys ...[]byte) []byte {
	if !validID(id) {
		return b
	}
	for i, key := range keys {
		if i > 0 {
			b = append(b, ' ')
		}
		b = appendSignature(b, id, at, body, hmac.New(sha256.New, key))
	}
	return b
}

// validID reports whether an id may be signed: the dots of "id.timestamp.body" must be
// the first two.
func validID(id string) bool { return !strings.Contains(id, ".") }

// Signer signs with one key, as [Sign] does, and keeps what is worked out of the
// key for the next message: for whoever signs many. It is safe for concurrent
// use, and takes about 700 bytes once it has signed.
type Signer struct {
	key   []byte
	spare atomic.Pointer[hash.Hash]
}

// NewSigner returns a Signer for the key, which must not change afterwards.
func NewSigner(key []byte) *Signer { return &Signer{key: key} }

// SignWith is [Sign] with signers in the place of keys.
func SignWith(b []byte, id string, at time.Time, body []byte, signers ...*Signer) []byte {
	if !validID(id) {
		return b
	}
	for i, s := range signers {
		if i > 0 {
			b = append(b, ' ')
		}
		mac := s.spare.Swap(nil) // whoever signs at the same time makes another
		if mac == nil {
			fresh := hmac.New(sha256.New, s.key)
			mac = &fresh
		}
		b = appendSignature(b, id, at, body, *mac)
		(*mac).Reset()
		s.spare.Store(mac)
	}
	return b
}

// appendSignature appends one "v1,<base64>" that is made with a fresh HMAC.
func appendSignature(b []byte, id string, at time.Time, body []byte, mac hash.Hash) []byte {
	n := len(b)
	// The room of the signature serves to put the signed prefix together.
	b = appendPrefix(b, id, at)
	mac.Write(b[n:])
	mac.Write(body)
	b = append(b[:n], scheme...)
	var sum [sha256.Size]byte
	return base64.StdEncoding.AppendEncode(b, mac.Sum(sum[:0]))
}

func appendPrefix(b []byte, id string, at time.Time) []byte {
	b = append(b, id...)
	b = append(b, '.')
	b = strconv.AppendInt(b, at.Unix(), 10)
	return append(b, '.')
}
