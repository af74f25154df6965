package check

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

// probe is one thing to try.
type probe struct {
	name, what string
	make       func(*message)
	// wants is what the answer should be.
	wants expectation
	// wrong says what the other answer means: of one that should be acknowledged
	// why it may be refused, of one that should be refused what can be done by it.
	wrong string
	// mild makes the wrong answer a warning.
	mild bool
	// repeat sends the message once before, and judges the second answer.
	repeat bool
}

type expectation uint8

const (
	acknowledged expectation = iota // 2xx
	refused                         // 4xx
)

// probes are all that is tried, the first to show that the rest has a meaning.
func (c *checker) probes() []*probe {
	forged := func(*message) string { return "v1," + strings.Repeat("A", 43) + "=" }
	return []*probe{{
		name: "good", what: "a good request", make: func(*message) {},
		wrong: "It must be acknowledged with 2xx. Is the secret the one that the receiver has, and does it verify the raw body?",
	}, {
		name: "repeated", what: "the same event again", repeat: true, make: func(*message) {},
		wrong: "An event that was seen before must be acknowledged with 2xx as well, or it is sent again and again for three days.",
	}, {
		name: "two-signatures", what: "two signatures, the second one right (a secret is being rotated)",
		make:  func(m *message) { m.signature = forged(m) + " " + m.sign(c.key) },
		wrong: "All signatures of the header must be tried: while a secret is rotated there are two, and either may be the receiver's.",
	}, {
		name: "other-scheme", what: "a signature of an unknown scheme before the right one",
		make:  func(m *message) { m.signature = "v1a,dW5rbm93bg== " + m.sign(c.key) },
		wrong: "Signatures whose scheme is unknown must be passed over, not refused.",
	}, {
		name: "unknown-type", what: "an event type that does not exist yet",
		make: func(m *message) {
			m.typ = "webhooks.check.unknown"
			m.body = envelope(m.id, m.typ, m.at, []byte(`{"new":true}`))
		},
		wrong: "Types that the receiver does not know must be acknowledged and ignored: patterns such as cases.* bring new ones.",
	}, {
		name: "verbatim", what: "a body that changes when it is parsed and written again",
		make: func(m *message) {
			m.body = envelope(m.id, m.typ, m.at, []byte(`{ "text":"Zo\u00eb \/ Zoë <&>", "big":1152921504606846977, "exact":1.10, "z":1, "a":null }`))
		},
		wrong: "The receiver seems to verify a body that was parsed and written anew. Verify the raw bytes (express.raw, await request.body(), request.raw_post, io.ReadAll).",
	}, {
		name: "large", what: "an event of 256 KiB, the largest there is",
		make: func(m *message) {
			m.body = envelope(m.id, m.typ, m.at, fmt.Appendf(nil, `{"filler":%q}`, bytes.Repeat([]byte("x"), 255<<10)))
		},
		wrong: "Events of up to 256 KiB come; raise the limit of the receiver, and of what stands before it, to 512 KiB.",
	}, {
		name: "slow", what: "a body that comes slowly", make: func(m *message) { m.slowly = true },
		wrong: "Bodies may come in pieces; wait some seconds for the rest.", mild: true,
	}, {
		name: "forged", what: "a wrong signature", wants: refused, make: func(m *message) { m.signature = forged(m) },
		wrong: "Anybody who knows the URL can send events: the signature is not verified.",
	}, {
		name: "wrong-secret", what: "a signature by another secret", wants: refused,
		make:  func(m *message) { other, _ := webhook.ParseSecret(webhook.NewSecret()); m.signature = m.sign(other) },
		wrong: "The signature's form is looked at, and not whether the secret made it.",
	}, {
		name: "cut", what: "the beginning of the right signature", wants: refused,
		make:  func(m *message) { m.signature = m.sign(c.key)[:8] },
		wrong: "A part of a signature is taken for the whole; it can be guessed. Compare all of it, in constant time.",
	}, {
		name: "unsigned", what: "no signature at all", wants: refused, make: func(m *message) { m.bare = true },
		wrong: "Requests without the webhook-… headers are accepted: whoever leaves them out gets in.",
	}, {
		name: "tampered", what: "a body that was changed after signing", wants: refused,
		make: func(m *message) {
			m.signature = m.sign(c.key)
			m.body = bytes.Replace(m.body, []byte(`"data":{`), []byte(`"data":{"forged":true,`), 1)
		},
		wrong: "The body can be changed on the way: the signature must be computed over all of it.",
	}, {
		name: "other-id", what: "another webhook-id than was signed", wants: refused,
		make:  func(m *message) { m.signature = m.sign(c.key); m.id += "x" },
		wrong: "The id is not part of what is verified, so that a recorded request passes for a new event. Sign \"id.timestamp.body\".",
	}, {
		name: "stale", what: "a request that was signed ten minutes ago", wants: refused,
		make:  func(m *message) { m.at = m.at.Add(-10 * time.Minute) },
		wrong: "A request that someone recorded can be sent again at any time. Refuse a webhook-timestamp that is more than five minutes off.",
	}, {
		name: "early", what: "a request that is dated ten minutes ahead", wants: refused,
		make:  func(m *message) { m.at = m.at.Add(10 * time.Minute) },
		wrong: "A timestamp in the future is accepted; refuse one that is more than five minutes off either way.",
	}, {
		name: "get", what: "a GET", wants: refused, make: func(m *message) { m.method, m.bare = http.MethodGet, true }, mild: true,
		wrong: "Webhooks come by POST only; answer others with 405.",
	}}
}

// try sends the n-th probe and judges the answer.
func (c *checker) try(ctx context.Context, n int, p *probe) Finding {
	m := c.message(n)
	p.make(m)
	if p.repeat {
		c.send(ctx, m)
		m.at = m.at.Add(time.Second) // a later attempt has a time and a signature of its own
	}
	a := c.send(ctx, m)
	f := Finding{Check: p.name, What: p.what, Status: a.status, DurationMS: float64(a.took.Microseconds()) / 1000}
	f.Grade, f.Says = c.judge(p, a)
	return f
}

func (c *checker) judge(p *probe, a answer) (Grade, string) {
	bad := Failed
	if p.mild {
		bad = Warning
	}
	good := a.status >= 200 && a.status <= 299
	took := a.took
	if p.name == "slow" {
		took -= c.Slowly
	}
	switch {
	case a.err != nil && p.wants == refused:
		return Warning, "It is refused, but without an answer; answer 4xx. " + c.unanswered(a)
	case a.err != nil && p.name == "good":
		return bad, c.unanswered(a)
	case a.err != nil:
		return bad, c.unanswered(a) + " " + p.wrong
	case p.wants == refused && good:
		return bad, fmt.Sprintf("Accepted with %d. %s", a.status, p.wrong)
	case p.wants == refused && a.status >= 500:
		return Warning, fmt.Sprintf("Refused with %d, which says that the receiver failed; answer 401 or another 4xx.", a.status)
	case p.wants == refused:
		return OK, fmt.Sprintf("Refused with %d.", a.status)
	case a.status >= 300 && a.status <= 399 && a.location != "":
		return bad, fmt.Sprintf("Answered with a redirect (%d), which is not followed. Register the URL that it leads to.", a.status)
	case a.status == http.StatusTooManyRequests:
		return bad, fmt.Sprintf("Answered 429: it takes fewer requests than this sends (%d).", len(c.probes())+1)
	case a.status == http.StatusGone:
		return bad, "Answered 410, which pauses the endpoint for good. " + p.wrong
	case !good:
		return bad, fmt.Sprintf("Answered %d. %s", a.status, p.wrong)
	case took > c.Aim:
		return Warning, fmt.Sprintf("Acknowledged with %d, but after %v; after %v it counts as failed. Answer first and work afterwards.", a.status, took.Round(10*time.Millisecond), c.Limit)
	}
	return OK, fmt.Sprintf("Acknowledged with %d.", a.status)
}
