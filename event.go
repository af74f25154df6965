package posthorn

import (
	"strings"
	"time"
)

// Event is something that happened, published once and delivered to every
// endpoint that matched at that moment.
type Event struct {
	ID     ID
	Tenant int64
	// Key is the id that the publisher chose, or empty. It is unique per tenant
	// for as long as the event is kept.
	Key  string
	Type string
	// OccurredAt is when it happened by the publisher's word; millisecond
	// precision, UTC.
	OccurredAt time.Time
	AcceptedAt time.Time
	// DeliverAt is when the first attempt may be made; zero for at once.
	DeliverAt time.Time
	// Deliveries counts the endpoints that matched. Their delivery ids follow
	// the event's own without a gap.
	Deliveries int
	Kind       EventKind
	// Body is what receivers get, byte for byte: see [AppendBody]. It is nil
	// where a method says so, and when the payload was erased.
	Body []byte
	// ErasedAt is when the payload was erased, by a user or by its retention; zero
	// while it is there.
	ErasedAt time.Time
	// Erasing: it was, but its bytes may be in the store's log still, as a reader of
	// the file is in the way of emptying it.
	Erasing bool
	// Source, Subject and SourceID are the CloudEvents attributes, or empty.
	Source, Subject, SourceID string
}

// EventKind tells events that users publish from those that Posthorn makes. One of a
// later version is kept by its number and otherwise like a user's.
type EventKind uint8

const (
	EventNormal      EventKind = 0
	EventTest        EventKind = 1 // made by a user's test; in no statistics
	EventOperational EventKind = 2 // webhooks.endpoint.failing and the like
)

// The types of Posthorn's own events.
const (
	TypePing              = "webhooks.ping"               // a test
	TypeEndpointFailing   = "webhooks.endpoint.failing"   // it will be paused
	TypeEndpointPaused    = "webhooks.endpoint.paused"    // by its own answers
	TypeEndpointRecovered = "webhooks.endpoint.recovered" // after it was said to be failing
)

// Ref is the id that users see and that receivers get as webhook-id.
func (e *Event) Ref() string {
	if e.Key != "" {
		return e.Key
	}
	return e.ID.Text(EventPrefix)
}

// Data returns the bytes of "data" within Body, as they were published; nil
// when the body is not there.
func (e *Event) Data() []byte {
	if e.Body == nil {
		return nil
	}
	return BodyData(e.Body, len(e.Ref()), e.Type)
}

// BodyData returns the bytes of "data" within a body that [AppendBody] made, with
// an id of so many bytes.
func BodyData(body []byte, refLength int, eventType string) []byte {
	head := len(bodyID) + refLength + len(bodyType) + len(eventType) + len(bodyTime) + len(bodyTimeFormat) + len(bodyData)
	return body[head : len(body)-1]
}

const (
	bodyID         = `{"id":"`
	bodyType       = `","type":"`
	bodyTime       = `","timestamp":"`
	bodyData       = `","data":`
	bodyTimeFormat = "2006-01-02T15:04:05.000Z"

	// BodyRefOffset is where the event's id begins within a body.
	BodyRefOffset = len(bodyID)
	// GeneratedRefLength is the length of an event id that Posthorn makes.
	GeneratedRefLength = len(EventPrefix) + 26
)

// BodyOverhead bounds what a body holds beside id, type and data, in bytes.
const BodyOverhead = len(bodyID) + len(bodyType) + len(bodyTime) + len(bodyTimeFormat) + len(bodyData) + 1

// AppendBody appends the delivered form of an event to b:
//
//	{"id":"evt_…","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{…}}
//
// data goes in as it is. ref and eventType must hold no character that JSON
// would escape, which valid ones do not. An empty ref leaves a hole of
// [GeneratedRefLength] bytes at [BodyRefOffset] for [FillRef]: the store gives
// ids out at the commit, long after the body was rendered.
func AppendBody(b []byte, ref, eventType string, occurredAt time.Time, data []byte) []byte {
	b = append(b, bodyID...)
	if ref == "" {
		b = append(b, refHole...)
	} else {
		b = append(b, ref...)
	}
	b = append(b, bodyType...)
	b = append(b, eventType...)
	b = append(b, bodyTime...)
	b = AppendTime(b, occurredAt)
	b = append(b, bodyData...)
	b = append(b, data...)
	return append(b, '}')
}

var refHole = strings.Repeat(" ", GeneratedRefLength)

// FillRef writes the event's generated id into the hole that [AppendBody] left.
func FillRef(body []byte, id ID) {
	id.AppendText(body[BodyRefOffset:BodyRefOffset], EventPrefix)
}

// ValidKey reports whether s may be an event id of a publisher's choice:
// [A-Za-z0-9_-]{1,128}, and not beginning with "evt_", which is reserved. It
// holds no dot, as Standard Webhooks 1.0 asks of a webhook-id.
func ValidKey(s string) bool {
	if len(s) == 0 || len(s) > 128 || strings.HasPrefix(s, EventPrefix) {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// TestPrefix begins the ids of the events that test one endpoint. They go to it
// alone, are attempted once, and are never replayed.
const TestPrefix = EventPrefix + "test_"

// IsTestRef reports whether an event's id is that of an endpoint's test.
func IsTestRef(ref string) bool { return strings.HasPrefix(ref, TestPrefix) }

// ValidRefForm reports whether s may be the id of an event: a publisher's own, one
// that Posthorn gave out, or one that it made of something else.
func ValidRefForm(s string) bool {
	return ValidKey(strings.TrimPrefix(s, EventPrefix))
}

// FormatTime writes a time as the delivered body does: UTC with milliseconds.
func FormatTime(t time.Time) string {
	var b [len(bodyTimeFormat)]byte
	return string(AppendTime(b[:0], t))
}

// AppendTime appends what [FormatTime] returns. Digits are written by hand: an
// event's time is written three times on its way, and time.Format is slow for a
// format of one's own.
func AppendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, bodyTimeFormat)
	}
	hour, minute, second := t.Clock()
	at := len(b)
	b = append(b, "0000-00-00T00:00:00.000Z"...)
	text := b[at:]
	putDigits(text[0:4], year)
	putDigits(text[5:7], int(month))
	putDigits(text[8:10], day)
	putDigits(text[11:13], hour)
	putDigits(text[14:16], minute)
	putDigits(text[17:19], second)
	putDigits(text[20:23], t.Nanosecond()/int(time.Millisecond))
	return b
}

// putDigits writes n in as many digits as b has.
func putDigits(b []byte, n int) {
	for i := len(b) - 1; i >= 0; i-- {
		b[i] = '0' + byte(n%10)
		n /= 10
	}
}
