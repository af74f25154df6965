package api

import (
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/posthorn/posthorn/internal/publish"
	"github.com/posthorn/posthorn/internal/web"
)

// Media types of CloudEvents 1.0 in the JSON format.
const (
	typeCloudEvent  = "application/cloudevents+json"
	typeCloudEvents = "application/cloudevents-batch+json"
)

// CloudEvent is an event in the JSON format of CloudEvents 1.0, for the document.
type CloudEvent struct {
	SpecVersion     string     `json:"specversion" enum:"1.0"`
	ID              string     `json:"id" doc:"With source it names the event: the same again delivers nothing new."`
	Source          string     `json:"source" format:"uri-reference"`
	Type            string     `json:"type" doc:"What happened; see GET /event-types."`
	Time            string     `json:"time,omitempty" format:"date-time" doc:"When it happened; now by default."`
	Subject         string     `json:"subject,omitempty"`
	DataContentType string     `json:"datacontenttype,omitempty" doc:"application/json or a type that ends in +json."`
	DataSchema      string     `json:"dataschema,omitempty" doc:"Not kept."`
	Data            jsonObject `json:"data,omitempty" doc:"About what; delivered as the bytes that came in."`
	DataBase64      string     `json:"data_base64,omitempty" doc:"The base64 of a JSON object, in place of data."`
	Tenant          string     `json:"tenant,omitempty" doc:"Whose event it is; for platform tokens."`
	DeliverAt       string     `json:"deliverat,omitempty" format:"date-time" doc:"Deliver then, not at once; as deliver_at elsewhere."`
	_               struct{}   `additionalProperties:"true"`
}

const cloudExample = `{"specversion": "1.0", "id": "590-7", "source": "/cases", "type": "cases.updated", "data": {"case_id": 590}}`

var cloudForms = map[string]bodyForm{
	typeCloudEvent:  {reflect.TypeFor[CloudEvent](), cloudExample},
	typeCloudEvents: {reflect.TypeFor[[]CloudEvent](), "[" + cloudExample + "]"},
}

// binaryCloudEvent reports whether a request is a CloudEvent in binary mode.
func binaryCloudEvent(r *http.Request) bool { return len(r.Header["Ce-Specversion"]) > 0 }

// mediaType checks that the body comes in one of the types. The data of a
// CloudEvent in binary mode may be of any type of JSON.
func mediaType(r *http.Request, types []string) (string, error) {
	if slices.Contains(types, typeCloudEvent) && binaryCloudEvent(r) {
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && strings.HasSuffix(kind, "+json") && kind != typeCloudEvent {
			types = []string{kind}
		}
	}
	return web.ContentType(r, types...)
}

// readEvent reads the event of POST /events in whichever form it came.
func (s *server) readEvent(q *request) (publish.Event, error) {
	switch {
	case q.contentType == typeCloudEvent:
		return s.Publish.ParseCloudEvent(q.body)
	case binaryCloudEvent(q.Request):
		return s.Publish.ParseBinary(q.Header, q.body)
	}
	return s.Publish.ParseEvent(q.body)
}

// hashAttributes adds the attributes of a CloudEvent in binary mode to what tells
// requests apart.
func hashAttributes(w io.Writer, h http.Header) {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.HasPrefix(name, "Ce-") {
			fmt.Fprintf(w, "%s %q\n", name, h[name])
		}
	}
}

// cloudEventRef is the event that source and source_id of a list name, or "".
func cloudEventRef(q *query) string {
	if q.text("source") == "" || q.text("source_id") == "" {
		return ""
	}
	return publish.CloudEventRef(q.text("source"), q.text("source_id"))
}

var cloudParams = []param{
	{"source", "The source of a CloudEvent, whole.", stringSchema()},
	{"subject", "The subject of a CloudEvent, whole.", stringSchema()},
	{"source_id", "The id that a CloudEvent came with, whole. With source it finds the event at once.", stringSchema()},
}

// cloudText is an attribute to look for.
func (q *query) cloudText(name string) string {
	if q.has(name) && (q.text(name) == "" || strings.IndexByte(q.text(name), 0) >= 0) {
		q.fault("%s must be a text without NUL, and not empty", name)
	}
	return q.text(name)
}
