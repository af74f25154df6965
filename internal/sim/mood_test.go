package sim

import (
	"net/http"
	"strconv"
	"time"

	"github.com/posthorn/posthorn"
)

// mood is how a receiver behaves.
type mood string

const (
	moodHealthy  mood = "healthy"
	moodSlow     mood = "slow"
	moodLate     mood = "late"     // answers when nobody waits any more
	moodHanging  mood = "hanging"  // never answers
	moodDead     mood = "dead"     // refuses connections
	moodFailing  mood = "failing"  // 4xx and 5xx
	moodFlapping mood = "flapping" // well and ill in turn
	moodLimited  mood = "limited"  // 429 and 503 with Retry-After, good and absurd
	moodGone     mood = "gone"     // 410
	moodLying    mood = "lying"    // 2xx, and then the connection breaks
	moodBroken   mood = "broken"   // the connection breaks before the answer
	moodGarbage  mood = "garbage"  // what comes is no HTTP
	moodRedirect mood = "redirect"
)

var (
	calmMoods = []mood{moodHealthy, moodSlow}
	moods     = []mood{
		moodHealthy, moodSlow, moodLate, moodHanging, moodDead, moodFailing, moodFlapping,
		moodLimited, moodGone, moodLying, moodBroken, moodGarbage, moodRedirect,
	}
)

func (c chance) mood(calm bool) mood {
	if calm || c.one(3) {
		return pick(c, calmMoods...)
	}
	return pick(c, moods...)
}

// set gives a host a mood.
func (w *world) set(host string, m mood, seed uint64) {
	count("receiver: %s", m)
	if m == moodDead {
		w.receivers.refuse(host)
		return
	}
	w.receivers.answer(host, func(nth int) reply { return chanceOf(seed, uint64(nth)).reply(m, nth, w.now) })
}

func (c chance) reply(m mood, nth int, now func() time.Time) reply {
	well := reply{status: 200, after: c.upTo(50 * time.Millisecond)}
	switch m {
	case moodSlow:
		well.after = 200*time.Millisecond + c.upTo(4*second)
	case moodLate:
		well.after = 33*second + c.upTo(second)
	case moodHanging:
		return reply{hang: true}
	case moodFlapping:
		if nth/6%2 == 1 {
			return reply{status: pick(c, 0, 500, 502, 504), after: c.upTo(second)}
		}
	case moodFailing:
		return reply{status: pick(c, 400, 401, 404, 413, 500, 502, 599), after: c.upTo(second)}
	case moodLimited:
		return c.limited(now())
	case moodGone:
		return reply{status: pick(c, 500, 500, 200, 410)}
	case moodLying:
		well.broken = true
	case moodBroken:
		return reply{after: c.upTo(second)}
	case moodGarbage:
		return reply{raw: pick(c, "SSH-2.0-OpenSSH_9.9\r\n", "\x00\x00\x06\x04\x00\x00\x00\x00\x00", "HTTP/1.1 200 O", "ICY 200 OK\r\nno header\r\n\r\n")}
	case moodRedirect:
		return reply{status: pick(c, 301, 302, 308), header: http.Header{"Location": {"http://elsewhere.receivers.net/"}}}
	}
	return well
}

// limited asks to be left alone, in ways that mean something and in ways that
// mean nothing.
func (c chance) limited(now time.Time) reply {
	rep := reply{status: pick(c, 429, 503)}
	text := ""
	switch c.IntN(5) {
	case 0, 1:
		seconds := 1 + c.IntN(600)
		text, rep.asked = strconv.Itoa(seconds), time.Duration(seconds)*second
	case 2:
		date := now.UTC().Add(c.upTo(hour)).Truncate(second)
		text, rep.asked = date.Format(http.TimeFormat), max(date.Sub(now), 0)
	case 3:
		text, rep.asked = pick(c, "99999999999999999999", "604800"), posthorn.MaxRetryAfter
	default:
		text = pick(c, "-5", "soon", "", "Thu, 01 Jan 1970 00:00:00 GMT")
	}
	rep.header = http.Header{"Retry-After": {text}}
	return rep
}
