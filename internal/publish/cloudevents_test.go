package publish_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/publish"
)

// pointers are those of an error's faults, with its code before them.
func pointers(err error) []string {
	e, ok := errors.AsType[*posthorn.Error](err)
	if !ok {
		return nil
	}
	list := []string{e.Code.String()}
	for _, f := range e.Faults {
		list = append(list, f.Pointer)
	}
	return list
}

const wholeCloudEvent = `{
  "specversion": "1.0", "id": "A-7 é", "source": "https://platform.example.com/cases?x=1", "type": "cases.updated",
  "time": "2026-04-29T11:10:00.1239+02:00", "subject": "590", "datacontenttype": "application/vnd.case+json; charset=utf-8",
  "dataschema": "https://example.com/s", "tenant": "acme", "deliverat": "2026-04-30T00:00:00z",
  "traceparent": "00-x", "sequence": 5, "sampled": true, "partitionkey": null,
  "data": { "n": 1152921504606846977, "s": "\/" }
}`

func TestCloudEventInTheJSONFormat(t *testing.T) {
	e, err := publish.ParseCloudEvent([]byte(wholeCloudEvent))
	if err != nil {
		t.Fatal(err)
	}
	want := publish.Event{
		// printf 'https://platform.example.com/cases?x=1\0A-7 é' | sha256sum | cut -c1-40
		ID: "evt_5685816b8fae57a3b7f257738438fec73d1a81c9", Type: "cases.updated", Tenant: "acme",
		Timestamp: time.Date(2026, 4, 29, 9, 10, 0, 123_900_000, time.UTC), DeliverAt: time.Date(2026, 4, 30, 0, 0, 0, 0, time.UTC),
		Data:   []byte(`{ "n": 1152921504606846977, "s": "\/" }`),
		Source: "https://platform.example.com/cases?x=1", Subject: "590", SourceID: "A-7 é",
	}
	e.Timestamp, e.DeliverAt = e.Timestamp.UTC(), e.DeliverAt.UTC()
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	// An attribute that is null is not set; data may be base64.
	small := `{"specversion":"1.0","id":"1","source":"/a","type":"cases.updated","time":null,"subject":null,"data_base64":"IHsiYSI6MX0K"}`
	if e, err = publish.ParseCloudEvent([]byte(small)); err != nil || string(e.Data) != `{"a":1}` || !e.Timestamp.IsZero() {
		t.Errorf("%+v, %v", e, err)
	}
	if !posthorn.ValidRefForm(e.ID) || posthorn.ValidKey(e.ID) || e.ID == publish.CloudEventRef("/a1", "") || len(e.ID) != 44 {
		t.Errorf("id %s", e.ID)
	}
}

func TestFaultsOfCloudEvents(t *testing.T) {
	with := func(members string) string {
		return `{"specversion":"1.0","id":"1","source":"/a","type":"cases.updated",` + members + `}`
	}
	for body, want := range map[string][]string{
		`{}`:                   {"invalid", "/specversion", "/id", "/source", "/type", "/data"},
		`[]`:                   {"invalid", ""},
		``:                     {"malformed"},
		`{"specversion":"1.0"`: {"malformed", ""},
		`{"specversion":"0.3","id":"","source":"","type":"","data":{}}`: {"invalid", "/specversion", "/id", "/source", "/type"},
		`{"specversion":1.0,"id":5,"source":{},"type":[],"data":{}}`:    {"invalid", "/specversion", "/id", "/source", "/type"},
		with(`"data":[1]`):                     {"invalid", "/data"},
		with(`"data":null`):                    {"invalid", "/data"},
		with(`"data":{},"data_base64":"e30="`): {"invalid", "/data_base64"},
		with(`"data":{"a":1,"a":2}`):           {"malformed", "/data/a"},
		with(`"data":{}}{`):                    {"malformed", ""},
		with(`"data":{},"time":"yesterday","deliverat":5,"subject":"","tenant":"a b"`):       {"invalid", "/time", "/deliverat", "/subject", "/tenant"},
		with(`"data":{},"Bad":"x","with_underscore":5,"` + strings.Repeat("a", 21) + `":""`): {"invalid", "/Bad", "/with_underscore", "/" + strings.Repeat("a", 21)},
		with(`"data":{},"ext":{}`):                                             {"invalid", "/ext"},
		with(`"data":{},"subject":"a\u0000b"`):                                 {"invalid", "/subject"},
		with(`"data":{},"subject":"` + strings.Repeat("s", 1025) + `"`):        {"invalid", "/subject"},
		with(`"datacontenttype":"text/plain","data":"hello"`):                  {"unsupported_media", "/datacontenttype"},
		with(`"datacontenttype":"application/json; charset=latin1","data":{}`): {"unsupported_media", "/datacontenttype"},
		with(`"data_base64":"aGVsbG8="`):                                       {"unsupported_media", "/data_base64"},
		with(`"data_base64":"!"`):                                              {"unsupported_media", "/data_base64"},
		with(`"data_base64":"eyJhIjoxLCJhIjoyfQ=="`):                           {"unsupported_media", "/data_base64"},
		with(`"data_base64":5`):                                                {"invalid", "/data_base64"},
	} {
		_, err := publish.ParseCloudEvent([]byte(body))
		if diff := cmp.Diff(want, pointers(err)); diff != "" {
			t.Errorf("%s: %v\n%s", body, err, diff)
		}
	}
	for body, want := range map[string][]string{
		`[]`: {"invalid", ""}, `{}`: {"invalid", ""},
		`[` + with(`"data":{}`) + `,{"specversion":"1.0"},5]`:            {"invalid", "/1/id", "/1/source", "/1/type", "/1/data", "/2"},
		`[` + with(`"data":{},"datacontenttype":"text/xml"`) + `,{},{}]`: {"unsupported_media", "/0/datacontenttype"},
		`[` + strings.Repeat(`{},`, 1000) + `{}]`:                        nil,
	} {
		_, err := publish.ParseCloudEvents([]byte(body))
		if want == nil {
			if e, ok := errors.AsType[*posthorn.Error](err); !ok || !strings.Contains(e.Message, "first 100") {
				t.Errorf("%v", err)
			}
			continue
		}
		if diff := cmp.Diff(want, pointers(err)); diff != "" {
			t.Errorf("%s: %v\n%s", body, err, diff)
		}
	}
}

func TestCloudEventInBinaryMode(t *testing.T) {
	headers := http.Header{}
	for name, value := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "A-7%20%C3%A9", "ce-source": `"https://platform.example.com/cases?x=1"`, "ce-type": "cases.updated",
		"ce-time": "2026-04-29T09:10:00Z", "ce-subject": `a "b \"c\"" %2541`, "ce-tenant": "acme", "ce-other": "%00", "content-type": "application/json",
	} {
		headers.Set(name, value)
	}
	headers.Del("ce-other")
	e, err := publish.ParseBinary(headers, []byte("{\r\n \"a\": 1 }\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := publish.Event{
		ID: publish.CloudEventRef("https://platform.example.com/cases?x=1", "A-7 é"), Type: "cases.updated", Tenant: "acme",
		Timestamp: time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC), Data: []byte("{\r\n \"a\": 1 }"),
		Source: "https://platform.example.com/cases?x=1", Subject: `a b "c" %41`, SourceID: "A-7 é",
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
	headers.Set("ce-id", "%zz")
	headers.Set("ce-subject", `"open`)
	headers.Set("ce-time", "%FF")
	headers.Set("ce-datacontenttype", "application/json")
	headers.Set("ce-n_o", "x")
	headers.Del("ce-type")
	headers.Add("ce-source", "again")
	_, err = publish.ParseBinary(headers, nil)
	if diff := cmp.Diff([]string{"invalid", "/data", "/datacontenttype", "/id", "/n_o", "/source", "/subject", "/time", "/type"}, pointers(err)); diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	_, err = publish.ParseBinary(http.Header{"Ce-Specversion": {"1.0"}}, []byte(`{"a":}`))
	if got := pointers(err); len(got) == 0 || got[0] != "malformed" {
		t.Errorf("%v", err)
	}
}

func FuzzCloudEvents(f *testing.F) {
	f.Add([]byte(wholeCloudEvent), "a%20b")
	f.Add([]byte(`[{}]`), `"x`)
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		for _, parse := range []func() ([]publish.Event, error){
			func() ([]publish.Event, error) {
				e, err := publish.ParseCloudEvent(body)
				return []publish.Event{e}, err
			},
			func() ([]publish.Event, error) { return publish.ParseCloudEvents(body) },
			func() ([]publish.Event, error) {
				e, err := publish.ParseBinary(map[string][]string{"Ce-Specversion": {"1.0"}, "Ce-Id": {header}, "Ce-Source": {header}, "Ce-Type": {"cases.closed"}}, body)
				return []publish.Event{e}, err
			},
		} {
			events, err := parse()
			if _, known := errors.AsType[*posthorn.Error](err); err != nil && !known {
				t.Fatalf("%v is no fault for users", err)
			}
			for _, e := range events {
				if err == nil && (e.ID != publish.CloudEventRef(e.Source, e.SourceID) || !posthorn.ValidRefForm(e.ID) || len(e.Data) == 0 || e.Data[0] != '{') {
					t.Fatalf("%+v", e)
				}
			}
		}
	})
}
