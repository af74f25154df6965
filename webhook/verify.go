package webhook

import (
	"crypto/hmac"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// DefaultTolerance is how far a timestamp may be from the receiver's clock, in
// both directions.
const DefaultTolerance = 5 * time.Minute

// Why a request is not accepted. Answer all of them with the same 401: the
// sender of a forged request should not learn more.
var (
	// ErrNoHeaders: at least one of the three headers is missing or empty. The request
	// was not signed, or something before the receiver dropped the headers.
	ErrNoHeaders = errors.New("a webhook-id, webhook-timestamp or webhook-signature header is missing")
	// ErrRepeatedHeader: webhook-id or webhook-timestamp came twice.
	ErrRepeatedHeader = errors.New("the webhook-id or webhook-timestamp header came more than once")
	// ErrTimestamp: the timestamp is not a number of seconds, or one of the two
	// below, which are ErrTimestamp as well.
	ErrTimestamp = errors.New("the webhook-timestamp is not acceptable")
	// ErrTooOld: a replayed request, or a clock that is ahead.
	ErrTooOld = fmt.Errorf("%w: it is too old; if the request is genuine, check this machine's clock", ErrTimestamp)
	// ErrTooNew: a clock that is behind.
	ErrTooNew = fmt.Errorf("%w: it lies in the future; check this machine's clock", ErrTimestamp)
	// ErrSignature: no signature fits. The secret is another endpoint's, or the
	// body is not the bytes that were sent.
	ErrSignature = errors.New("no signature matches; check the secret, and that the body is the exact bytes that came in")
	// ErrNoSignature: the header holds no signature of a known scheme; it is
	// ErrSignature as well.
	ErrNoSignature = fmt.Errorf("%w: the webhook-signature header holds no v1 signature", ErrSignature)
)

// Verifier checks signed requests. Its fields may be set before first use;
// Verify may then be called concurrently.
type Verifier struct {
	// Tolerance is how far the timestamp may be from Now, both ways. It bounds
	// for how long a recorded request can be replayed. Zero or less accepts only
	// the current second.
	Tolerance time.Duration
	// Now tells the time.
	Now func() time.Time

	keys [][]byte
}

// NewVerifier returns a verifier that accepts a request signed with any of the
// secrets, with [DefaultTolerance]. Give more than one while a secret is being
// rotated. It returns [ErrSecret] when a secret is malformed or none is given.
func NewVerifier(secrets ...string) (*Verifier, error) {
	if len(secrets) == 0 {
		return nil, fmt.Errorf("no secret was given: %w", ErrSecret)
	}
	v := &Verifier{Tolerance: DefaultTolerance, Now: time.Now}
	for i, s := range secrets {
		key, err := ParseSecret(s)
		if err != nil {
			return nil, fmt.Errorf("secret %d of %d: %w", i+1, len(secrets), err)
		}
		v.keys = append(v.keys, key)
	}
	return v, nil
}

// Verify is [Verifier.Verify] with the secrets and [DefaultTolerance], for programs
// that verify now and then.
func Verify(h http.Header, body []byte, secrets ...string) error {
	v, err := NewVerifier(secrets...)
	if err != nil {
		return err
	}
	return v.Verify(h, body)
}

// Verify reports with nil that the request was signed with one of the secrets
// and lately. body must be the exact bytes that came in. All signatures of the
// header are tried, of any scheme but v1 none; comparing takes the same time
// wherever two signatures differ.
func (v *Verifier) Verify(h http.Header, body []byte) error {
	id, err := single(h, HeaderID)
	if err != nil {
		return err
	}
	stamp, err := single(h, HeaderTimestamp)
	if err != nil {
		return err
	}
	signatures := h.Values(HeaderSignature)
	if strings.Join(signatures, "") == "" {
		return ErrNoHeaders
	}
	at, err := v.checkTime(stamp)
	if err != nil {
		return err
	}
	return v.checkSignatures(signatures, id, at, body)
}

// single returns the only value of a header.
func single(h http.Header, name string) (string, error) {
	switch values := h.Values(name); {
	case len(values) == 0 || len(values) == 1 && values[0] == "":
		return "", ErrNoHeaders
	case len(values) > 1:
		return "", ErrRepeatedHeader
	default:
		return values[0], nil
	}
}

func (v *Verifier) checkTime(stamp string) (time.Time, error) {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	// What does not print as it came would be signed as another text.
	if err != nil || strconv.FormatInt(seconds, 10) != stamp {
		return time.Time{}, fmt.Errorf("%w: it is not a number of Unix seconds", ErrTimestamp)
	}
	// Seconds are compared, not times: a number far out would wrap around.
	now, tolerance := v.Now().Unix(), int64(max(v.Tolerance, 0)/time.Second)
	switch {
	case seconds < now-tolerance:
		return time.Time{}, ErrTooOld
	case seconds > now+tolerance:
		return time.Time{}, ErrTooNew
	}
	return time.Unix(seconds, 0), nil
}

func (v *Verifier) checkSignatures(headers []string, id string, at time.Time, body []byte) error {
	expected := make([][]byte, len(v.keys))
	for i, key := range v.keys {
		expected[i] = Sign(make([]byte, 0, len(id)+32+signatureLength), id, at, body, key)
	}
	found, matched := false, false
	for _, header := range headers {
		for signature := range strings.SplitSeq(header, " ") {
			if !strings.HasPrefix(signature, scheme) {
				continue
			}
			found = true
			for _, e := range expected {
				// hmac.Equal compares lengths too: an empty or cut signature fails.
				if hmac.Equal([]byte(signature), e) {
					matched = true
				}
			}
		}
	}
	switch {
	case matched:
		return nil
	case !found:
		return ErrNoSignature
	}
	return ErrSignature
}
