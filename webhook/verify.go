package webhook

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
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
	// ErrID: the webhook-id holds a dot. What is signed is "id.timestamp.body", so the
	// same signature would fit another id with another timestamp and body.
	ErrID = errors.New("the webhook-id holds a dot, and no sender of Standard Webhooks signs such an id")
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
	// ErrTwoEndpoints: signatures of two endpoints match (see [NewVerifierFor]), so that
	// it cannot be told whose event it is. Give no two endpoints the same secret.
	ErrTwoEndpoints = errors.New("signatures of two endpoints match, so that it cannot be told whose event this is")
)

// Verifier checks signed requests. Its fields may be set before first use;
// Verify may then be called concurrently.
type Verifier struct {
	// Tolerance is how far the timestamp may be from Now, both ways. It bounds
	// for how long a recorded request can be replayed: twice this, as it may be dated
	// ahead. Zero or less accepts only the current second.
	Tolerance time.Duration
	// Now tells the time.
	Now func() time.Time

	endpoints []*endpoint
}

// NewVerifier returns a verifier for one endpoint, which accepts a request signed with
// any of its secrets, with [DefaultTolerance]. Give more than one while a secret is
// being rotated; for the secrets of several endpoints there is [NewVerifierFor]. It
// returns [ErrSecret] when a secret is malformed or none is given.
func NewVerifier(secrets ...string) (*Verifier, error) {
	e, err := newEndpoint("", secrets)
	if err != nil {
		return nil, err
	}
	return &Verifier{Tolerance: DefaultTolerance, Now: time.Now, endpoints: []*endpoint{e}}, nil
}

// NewVerifierFor is [NewVerifier] for a receiver of several endpoints, as of several
// tenants: the secrets of each, by a name that [Event.Endpoint] tells the handler.
// Each endpoint has ids of its own, so that what one sent hides nothing of another's.
// All secrets are tried on each request: where there are hundreds, give each endpoint a
// path of its own. It returns [ErrSecret] when an endpoint has none, or two have the same.
func NewVerifierFor(endpoints map[string][]string) (*Verifier, error) {
	if len(endpoints) == 0 {
		return nil, fmt.Errorf("no endpoint was given: %w", ErrSecret)
	}
	v := &Verifier{Tolerance: DefaultTolerance, Now: time.Now}
	owner := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(endpoints)) {
		e, err := newEndpoint(name, endpoints[name])
		if err != nil {
			return nil, fmt.Errorf("endpoint %q: %w", name, err)
		}
		for _, space := range e.spaces {
			if other, taken := owner[space]; taken {
				return nil, fmt.Errorf("endpoints %q and %q have the same secret: %w", other, name, ErrSecret)
			}
			owner[space] = name
		}
		v.endpoints = append(v.endpoints, e)
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
// and lately. body must be the exact bytes that came in. Names of headers may be in
// any case. All signatures of all lines of the header are tried, of any scheme but v1
// none; comparing takes the same time wherever two signatures differ.
func (v *Verifier) Verify(h http.Header, body []byte) error {
	_, _, err := v.verify(h, body)
	return err
}

// verify also returns whose request it is, and when it was sent.
func (v *Verifier) verify(h http.Header, body []byte) (from *endpoint, at time.Time, err error) {
	id, err := single(h, HeaderID)
	if err != nil {
		return nil, at, err
	}
	if !validID(id) {
		return nil, at, ErrID
	}
	stamp, err := single(h, HeaderTimestamp)
	if err != nil {
		return nil, at, err
	}
	given := signatures(h)
	if len(given) == 0 {
		return nil, at, ErrNoHeaders
	}
	if at, err = parseTime(stamp); err != nil {
		return nil, at, err
	}
	if err := v.checkTime(at); err != nil {
		return nil, at, err
	}
	from, err = v.signer(given, id, at, body)
	return from, at, err
}

func parseTime(stamp string) (time.Time, error) {
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	// What does not print as it came would be signed as another text.
	if err != nil || strconv.FormatInt(seconds, 10) != stamp {
		return time.Time{}, fmt.Errorf("%w: it is not a number of Unix seconds", ErrTimestamp)
	}
	return time.Unix(seconds, 0), nil
}

func (v *Verifier) checkTime(at time.Time) error {
	// Seconds are compared, not times: a number far out would wrap around.
	seconds, now, tolerance := at.Unix(), v.Now().Unix(), wholeSeconds(v.Tolerance)
	switch {
	case seconds < now-tolerance:
		return ErrTooOld
	case seconds > now+tolerance:
		return ErrTooNew
	}
	return nil
}

// wholeSeconds is a length in seconds, as timestamps are; 0 for a negative one.
func wholeSeconds(d time.Duration) int64 { return int64(max(d, 0) / time.Second) }

// signer returns the endpoint of which one of the signatures is.
func (v *Verifier) signer(given []string, id string, at time.Time, body []byte) (*endpoint, error) {
	given = slices.DeleteFunc(given, func(s string) bool { return !strings.HasPrefix(s, scheme) })
	if len(given) == 0 {
		return nil, ErrNoSignature
	}
	var found *endpoint
	for _, e := range v.endpoints {
		switch {
		case !e.signed(given, id, at, body):
		case found != nil:
			return nil, ErrTwoEndpoints
		default:
			found = e
		}
	}
	if found == nil {
		return nil, ErrSignature
	}
	return found, nil
}
