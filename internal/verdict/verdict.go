// Package verdict says why a signed request is not accepted. A receiver that is
// attacked should say nothing; its developer, who has the secret, wants the
// cause. So this goes further than verifying does: it tries what commonly goes
// wrong, and names what fits.
//
// A signature that fits in another way is proof of that cause. Where none fits,
// a wrong secret and a body that cannot be guessed look the same, and what is
// said then is as far as it is known.
package verdict

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

// Cause is what is wrong, for programs.
type Cause string

const (
	Valid              Cause = "valid"
	MissingHeader      Cause = "missing_header"
	RepeatedHeader     Cause = "repeated_header"
	MalformedID        Cause = "malformed_id"
	MalformedTimestamp Cause = "malformed_timestamp"
	MalformedSignature Cause = "malformed_signature"
	// WrongEncoding: the right secret and body, put together in another way.
	WrongEncoding Cause = "wrong_encoding"
	AlteredBody   Cause = "altered_body"
	// Clock: the signature fits, the time does not.
	Clock Cause = "clock"
	// WrongSecret: nothing fits, and nothing speaks for an altered body.
	WrongSecret Cause = "wrong_secret"
)

// Request is what is judged.
type Request struct {
	Header http.Header
	Body   []byte
	// Secrets are those that the receiver accepts, in the whsec_ form.
	Secrets []string
	// Now is the receiver's clock; Tolerance is how far a timestamp may be off.
	Now       time.Time
	Tolerance time.Duration
}

// Verdict is what came out. It holds no secret and no signature.
type Verdict struct {
	Cause Cause
	// Explanation says what is wrong; Hint what to do, or is empty.
	Explanation, Hint string
	// Secret is which of the secrets fits, counted from 1; 0 for none.
	Secret int
	// At is the timestamp; zero if it cannot be read.
	At time.Time
}

// Judge verifies a request and finds out why it fails. It returns an error only
// for secrets that are none: see [webhook.ErrSecret].
func Judge(r Request) (Verdict, error) {
	keys := make([][]byte, len(r.Secrets))
	if len(keys) == 0 {
		return Verdict{}, webhook.ErrSecret
	}
	for i, s := range r.Secrets {
		key, err := webhook.ParseSecret(s)
		if err != nil {
			return Verdict{}, fmt.Errorf("secret %d of %d: %w", i+1, len(keys), err)
		}
		keys[i] = key
	}
	r.Header = canonical(r.Header)
	j := &judge{Request: r, keys: keys}
	return j.judge(), nil
}

// canonical returns the headers under the names that net/http gives them; values of
// several spellings of a name count together, as they do for [webhook.Verifier].
func canonical(h http.Header) http.Header {
	all := make(http.Header, len(h))
	for name, values := range h {
		name = http.CanonicalHeaderKey(name)
		all[name] = append(all[name], values...)
	}
	return all
}

// judge is one judgement.
type judge struct {
	Request
	keys       [][]byte
	id, stamp  string
	at         time.Time
	signatures []string // the v1 ones, without the scheme
}

func (j *judge) judge() Verdict {
	for _, step := range []func() *Verdict{j.headers, j.timestamp, j.split, j.genuine, j.encoding, j.altered} {
		if v := step(); v != nil {
			v.At = j.at
			return *v
		}
	}
	v := j.unknown()
	v.At = j.at
	return v
}

func say(c Cause, explanation, hint string) *Verdict {
	return &Verdict{Cause: c, Explanation: explanation, Hint: hint}
}

// headers looks for the three.
func (j *judge) headers() *Verdict {
	var missing []string
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp, webhook.HeaderSignature} {
		if strings.TrimSpace(strings.Join(j.Header.Values(name), "")) == "" {
			missing = append(missing, name)
		}
	}
	switch {
	case len(missing) == 3 && j.Header.Get("svix-signature") != "":
		return say(MissingHeader, "The headers are svix-id, svix-timestamp and svix-signature: the request was not sent by Posthorn.",
			"Rename them to webhook-… to judge the rest; the scheme is the same.")
	case len(missing) == 3:
		return say(MissingHeader, "None of the headers webhook-id, webhook-timestamp and webhook-signature is there: the request was not signed, or something before the receiver drops headers that it does not know.",
			"Look whether a proxy or gateway passes them on, and whether the framework renames them (as HTTP_WEBHOOK_ID).")
	case len(missing) > 0:
		return say(MissingHeader, fmt.Sprintf("The header %s is missing.", strings.Join(missing, " and the header ")),
			"Something between sender and receiver dropped it.")
	}
	for _, name := range []string{webhook.HeaderID, webhook.HeaderTimestamp} {
		if n := len(j.Header.Values(name)); n > 1 {
			return say(RepeatedHeader, fmt.Sprintf("The header %s came %d times.", name, n), "Something before the receiver adds headers, or two requests were mixed up.")
		}
	}
	j.id, j.stamp = j.Header.Get(webhook.HeaderID), j.Header.Get(webhook.HeaderTimestamp)
	if strings.Contains(j.id, ".") {
		return say(MalformedID, "The webhook-id holds a dot. What is signed is \"id.timestamp.body\", so that its signature would fit other requests too; such an id is never accepted.",
			"Posthorn sends no such id. If the request is another sender's, it must choose ids without dots.")
	}
	return nil
}

func (j *judge) timestamp() *Verdict {
	seconds, err := strconv.ParseInt(j.stamp, 10, 64)
	switch {
	case err != nil || strconv.FormatInt(seconds, 10) != j.stamp:
		return say(MalformedTimestamp, "The webhook-timestamp is not a number of Unix seconds.", "Use the header as it came.")
	case seconds > 1e11:
		return say(MalformedTimestamp, "The webhook-timestamp is far too large for seconds; is it in milliseconds?", "It is signed as Unix seconds.")
	}
	j.at = time.Unix(seconds, 0).UTC()
	return nil
}

// genuine looks for a signature that fits as it should.
func (j *judge) genuine() *Verdict {
	for i, key := range j.keys {
		if !j.matches(mac(key, j.prefix(), j.Body)) {
			continue
		}
		v := &Verdict{Cause: Valid, Secret: i + 1, Explanation: "The signature is right, and the time is within the tolerance."}
		if len(j.keys) > 1 {
			v.Explanation = fmt.Sprintf("The signature is right for secret %d of %d, and the time is within the tolerance.", i+1, len(j.keys))
		}
		off := j.at.Sub(j.Now.Truncate(time.Second))
		switch {
		case off < -j.Tolerance:
			v.Cause = Clock
			v.Explanation = fmt.Sprintf("The signature is right, but the request is %v old; at most %v is accepted.", -off, j.Tolerance)
			v.Hint = "If it was recorded a while ago, that is all that is wrong (--at judges it as of then). If it has just come, the receiver's clock is ahead: check its time service."
		case off > j.Tolerance:
			v.Cause = Clock
			v.Explanation = fmt.Sprintf("The signature is right, but the request is from %v in the future; at most %v is accepted.", off, j.Tolerance)
			v.Hint = "The receiver's clock is behind: check its time service."
		}
		return v
	}
	return nil
}

func (j *judge) prefix() []byte { return fmt.Appendf(nil, "%s.%s.", j.id, j.stamp) }

// unknown is said when nothing fits.
func (j *judge) unknown() Verdict {
	secret := "the secret"
	if len(j.keys) > 1 {
		secret = "each of the secrets"
	}
	if v := j.suspectBody(); v != nil {
		return *v
	}
	v := Verdict{Cause: WrongSecret, Explanation: fmt.Sprintf("No signature fits. Nothing shows that the body was altered, so that %s is probably that of another endpoint, or an old one.", secret)}
	v.Hint = "Compare the secret with the endpoint's own. If it is the right one, the body is not the exact bytes that were sent."
	return v
}
