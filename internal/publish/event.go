package publish

import (
	"fmt"
	"strings"
	"time"

	"github.com/posthorn/posthorn"
)

// What one request may hold.
const (
	// MaxEventSize bounds an event's delivered body, in bytes: it is what
	// receivers must be able to take.
	MaxEventSize = 256 << 10
	// MaxBatchSize bounds the body of a batch, in bytes.
	MaxBatchSize = 8 << 20
	// MaxBatchEvents bounds the events of a batch.
	MaxBatchEvents = 1000
	// MaxDepth bounds how deep objects and arrays nest in data, data included.
	MaxDepth = 100
	// maxAttribute bounds source, subject and source id, in bytes.
	maxAttribute = 1024
)

// Event is one event as it was published. Empty and zero members were absent.
type Event struct {
	ID   string
	Type string
	// Timestamp is when it happened; DeliverAt when it may first be sent.
	Timestamp, DeliverAt time.Time
	Tenant               string
	// Data is a JSON object, byte for byte as it came, as a part of the parsed
	// body: it may be kept only as long as that is not written to.
	Data []byte
	// Source, Subject and SourceID are the CloudEvents attributes. With SourceID the
	// event came as a CloudEvent, and ID is [CloudEventRef] of Source and SourceID.
	Source, Subject, SourceID string
	// Test marks an event that is for trying out: receivers get posthorn-test, and
	// what comes of it changes neither health nor statistics. It is no member of
	// the body.
	Test bool
}

// checkForm finds what is wrong with an event whatever the catalogue and the
// time. Members whose bit is in skip have been reported.
func (e *Event) checkForm(at place, skip members, f *faults) {
	switch {
	case skip&memberType != 0:
	case e.Type == "":
		f.add(at, "type", "is missing")
	case !posthorn.ValidType(e.Type):
		f.add(at, "type", "must be an event type such as cases.created: segments of a-z, 0-9, - and _ joined by dots")
	}
	if skip&memberData == 0 && len(e.Data) == 0 {
		f.add(at, "data", "is missing")
	}
	derived := e.SourceID != "" && e.ID == CloudEventRef(e.Source, e.SourceID)
	if skip&memberID == 0 && e.ID != "" && !derived && !posthorn.ValidKey(e.ID) {
		f.add(at, "id", idRule)
	}
	if skip&memberTimestamp == 0 && !e.Timestamp.IsZero() {
		checkTimestamp(e.Timestamp, e.called("timestamp"), at, f)
	}
	if skip&memberDeliverAt == 0 && !e.DeliverAt.IsZero() {
		checkDeliverAt(e.DeliverAt, e.called("deliver_at"), at, f)
	}
	for _, attribute := range [...]struct{ name, value string }{
		{"source", e.Source}, {"subject", e.Subject}, {"source_id", e.SourceID},
	} {
		if len(attribute.value) > maxAttribute || strings.IndexByte(attribute.value, 0) >= 0 {
			f.add(at, e.called(attribute.name), fmt.Sprintf("must be at most %d bytes of text without NUL", maxAttribute))
		}
	}
}

const idRule = "must be 1 to 128 of A-Z, a-z, 0-9, _ and -, and must not begin with evt_; leave it out to be given one"

// checkTimestamp refuses the epoch itself, too: a store has it for no time.
func checkTimestamp(t time.Time, name string, at place, f *faults) {
	switch err := posthorn.CheckTime(t); {
	case err != nil:
		f.add(at, name, err.Error())
	case t.UnixMilli() == 0:
		f.add(at, name, "must be another time than 1970-01-01T00:00:00Z")
	}
}

// checkDeliverAt refuses what is before the epoch: a past time sends now, and one of
// so long ago is a mistake, such as a number that was taken for another.
func checkDeliverAt(t time.Time, name string, at place, f *faults) {
	err := posthorn.CheckTime(t)
	if err == nil && t.Unix() < 0 {
		err = posthorn.ErrTimeEpoch
	}
	if err != nil {
		f.add(at, name, err.Error())
	}
}

// place is where an event stands in its request.
type place struct {
	pointer func(i int) string // nil: the event is the body
	index   int
}

func (p place) String() string {
	if p.pointer == nil {
		return ""
	}
	return p.pointer(p.index)
}

// InBatch is the pointer of event i of a batch or of NDJSON.
func InBatch(i int) string { return fmt.Sprintf("/events/%d", i) }

// faults collects what is wrong with a request.
type faults struct {
	list []posthorn.Fault
	more int
}

// maxFaults bounds the answer to a batch that is wrong throughout.
const maxFaults = 100

// full tells that a further fault is only counted: its detail need not be found.
func (f *faults) full() bool { return len(f.list) >= maxFaults }

func (f *faults) add(at place, member, detail string) {
	if f.full() {
		f.more++
		return
	}
	pointer := at.String()
	if member != "" {
		pointer += "/" + escapePointer.Replace(member)
	}
	f.list = append(f.list, posthorn.Fault{Pointer: shorten(pointer), Detail: detail})
}

// maxPointer bounds what is repeated of names that callers make up, in bytes.
const maxPointer = 256

// shorten cuts a pointer that is longer than anyone reads.
func shorten(pointer string) string {
	if len(pointer) <= maxPointer {
		return pointer
	}
	return strings.ToValidUTF8(pointer[:maxPointer], "") + "…"
}

// escapePointer writes a name as a part of a JSON pointer (RFC 6901).
var escapePointer = strings.NewReplacer("~", "~0", "/", "~1")

func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	message := "The event is not valid; see errors for every fault."
	if f.more > 0 {
		message = fmt.Sprintf("The events are not valid; errors lists the first %d of %d faults.", maxFaults, maxFaults+f.more)
	}
	return &posthorn.Error{Code: posthorn.Invalid, Message: message, Faults: f.list}
}
