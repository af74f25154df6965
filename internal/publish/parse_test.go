package publish

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn"
)

func TestEventIsReadAsItCame(t *testing.T) {
	const data = "{ \"n\":1.0, \"big\": 12345678901234567890123, \"html\":\"\\u003cb\\u003e\",\t\"é\":\"\\u00e9\\ud83d\\ude00\" , \"e\":1E+2,\"z\":-0}"
	got, err := ParseEvent([]byte("\n {\"data\" : " + data + ", \"t\\u0079pe\":\"cases.updated\", \"id\":\"my-1_A\"," +
		`"timestamp":"2026-04-29t11:10:00.1239+02:00","deliver_at":"2026-05-01T00:00:00Z","tenant":"acme"}` + " \n"))
	if err != nil {
		t.Fatal(err)
	}
	want := Event{
		ID: "my-1_A", Type: "cases.updated", Tenant: "acme", Data: []byte(data),
		Timestamp: time.Date(2026, 4, 29, 9, 10, 0, 123_900_000, time.UTC),
		DeliverAt: time.Date(2026, 5, 1, 0, 0, 0, 0, time.UTC),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// faultsOf writes an error as its code and faults, one a line.
func faultsOf(t *testing.T, err error) string {
	t.Helper()
	if err == nil {
		return "ok"
	}
	e, ok := errors.AsType[*posthorn.Error](err)
	if !ok {
		t.Fatalf("%v is no *posthorn.Error", err)
	}
	lines := []string{e.Code.String()}
	for _, f := range e.Faults {
		lines = append(lines, f.Pointer+" "+f.Detail)
	}
	return strings.Join(lines, "\n")
}

func TestWrongMembersAreAllNamed(t *testing.T) {
	for name, c := range map[string]struct {
		body string
		want []string // each the beginning of a line
	}{
		"no object":     {`[]`, []string{"invalid", " must be an object"}},
		"null":          {`null`, []string{"invalid", " must be an object"}},
		"empty object":  {`{}`, []string{"invalid", "/type is missing", "/data is missing"}},
		"nulls":         {`{"type":null,"data":null,"id":null,"timestamp":null,"deliver_at":null,"tenant":null}`, []string{"invalid", "/type must be a string", "/data must be an object", "/id must be a string; leave", "/timestamp must be a string; leave", "/deliver_at must be a string; leave", "/tenant must be a string; leave"}},
		"wrong types":   {`{"type":1,"data":[{}],"id":true,"timestamp":1714381800,"deliver_at":{},"tenant":[]}`, []string{"invalid", "/type must be a string", "/data must be an object", "/id must be", "/timestamp must be", "/deliver_at must be", "/tenant must be"}},
		"unknown":       {`{"Type":"cases.created","type":"cases.created","data":{},"a/b~c":{"deep":[1]}}`, []string{"invalid", "/Type is not known; an event has type, data,", "/a~1b~0c is not known"}},
		"empty texts":   {`{"type":"","data":{},"id":"","tenant":""}`, []string{"invalid", "/type must not be empty", "/id must be 1 to 128", "/tenant must be the name"}},
		"bad type":      {`{"type":"Cases","data":{}}`, []string{"invalid", "/type must be an event type such as"}},
		"bad id":        {`{"type":"a","data":{},"id":"a.b"}`, []string{"invalid", "/id must be"}},
		"reserved id":   {`{"type":"a","data":{},"id":"evt_1"}`, []string{"invalid", "/id must be"}},
		"date alone":    {`{"type":"a","data":{},"timestamp":"2026-04-29"}`, []string{"invalid", "/timestamp must be an RFC 3339"}},
		"no zone":       {`{"type":"a","data":{},"timestamp":"2026-04-29T09:10:00"}`, []string{"invalid", "/timestamp must be"}},
		"comma":         {`{"type":"a","data":{},"timestamp":"2026-04-29T09:10:00,5Z"}`, []string{"invalid", "/timestamp must be"}},
		"one digit":     {`{"type":"a","data":{},"timestamp":"2026-04-29T9:10:00Z"}`, []string{"invalid", "/timestamp must be"}},
		"no such day":   {`{"type":"a","data":{},"deliver_at":"2026-02-30T00:00:00Z"}`, []string{"invalid", "/deliver_at must be"}},
		"year 0":        {`{"type":"a","data":{},"timestamp":"0000-01-01T00:00:00Z"}`, []string{"invalid", "/timestamp must be"}},
		"year 1":        {`{"type":"a","data":{},"timestamp":"0001-01-01T00:00:00Z"}`, []string{"invalid", "/timestamp must be"}},
		"year 10000":    {`{"type":"a","data":{},"timestamp":"9999-12-31T23:59:59-01:00"}`, []string{"invalid", "/timestamp must be"}},
		"syntax":        {"{\"type\":\"a\",\n \"data\":{\"x\":01}}", []string{"malformed", "/data invalid character '1' after object value (expecting ',' or '}') at line 2, column 15"}},
		"dup":           {`{"type":"a","type":"a","data":{}}`, []string{"malformed", "/type the name occurs twice in its object, at line 1, column 13"}},
		"dup escaped":   {`{"type":"a","t\u0079pe":"a","data":{}}`, []string{"malformed", "/type the name occurs twice"}},
		"dup in data":   {`{"type":"a","data":{"a":[{"b":1,"b":2}]}}`, []string{"malformed", "/data/a/0/b the name occurs twice"}},
		"dup unknown":   {`{"type":"a","data":{},"x":{"y":1,"y":1}}`, []string{"malformed", "/x/y the name occurs twice"}},
		"bad UTF-8":     {"{\"type\":\"a\",\"data\":{\"x\":\"\xff\"}}", []string{"malformed", "/data/x invalid UTF-8"}},
		"lone half":     {`{"type":"a","data":{"x":"\ud800"}}`, []string{"malformed", "/data/x invalid"}},
		"bad UTF-8 out": {"{\"type\":\"a\",\"data\":{}, \xff}", []string{"malformed", " invalid character"}},
		"BOM":           {"\ufeff{\"type\":\"a\",\"data\":{}}", []string{"malformed", " invalid character"}},
		"control char":  {"{\"type\":\"a\",\"data\":{\"x\":\"\x01\"}}", []string{"malformed", "/data/x invalid character"}},
		"comment":       {`{"type":"a",/**/"data":{}}`, []string{"malformed", " invalid character"}},
		"NaN":           {`{"type":"a","data":{"x":NaN}}`, []string{"malformed", "/data/x invalid character"}},
		"cut":           {`{"type":"a","data":{"x":`, []string{"malformed", "/data/x the body ends within a value,"}},
		"cut name":      {`{"type":"a`, []string{"malformed", "/type the body ends within a value,"}},
		"trailing":      {`{"type":"a","data":{}}{}`, []string{"malformed", " more follows after the end of the JSON value at line 1, column 23"}},
		"trailing junk": {`{"type":"a","data":{}} x`, []string{"malformed", " more follows"}},
		"empty":         {``, []string{"malformed"}},
		"blank":         {" \n", []string{"malformed"}},
		"depth 101":     {`{"type":"a","data":` + nest(101) + `}`, []string{"malformed", "/data nests deeper than 100 levels"}},
		"depth 1000000": {`{"type":"a","data":{"x":` + strings.Repeat("[", 1_000_000), []string{"malformed", "/data/x/0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseEvent([]byte(c.body))
			got := strings.Split(faultsOf(t, err), "\n")
			ok := len(got) == len(c.want)
			for i := range min(len(got), len(c.want)) {
				ok = ok && strings.HasPrefix(got[i], c.want[i])
			}
			if !ok {
				t.Errorf("got  %.300q\nwant %q", got, c.want)
			}
		})
	}
}

func TestLongNamesAreNotRepeatedWhole(t *testing.T) {
	for name, body := range map[string]string{
		"unknown member": `{"type":"a","data":{},"` + strings.Repeat("é", 50_000) + `":1}`,
		"deep":           `{"type":"a","data":{"x":` + strings.Repeat("[", 1_000_000),
		"duplicate":      `{"type":"a","data":{"` + strings.Repeat("k", 50_000) + `":1,"` + strings.Repeat("k", 50_000) + `":1}}`,
	} {
		_, err := ParseEvent([]byte(body))
		if got := faultsOf(t, err); len(got) > 500 || !strings.Contains(got, "…") || !utf8.ValidString(got) {
			t.Errorf("%s: %d bytes: %.300s", name, len(got), got)
		}
	}
}

// nest is an object with n levels in all.
func nest(n int) string {
	return `{"x":` + strings.Repeat("[", n-1) + strings.Repeat("]", n-1) + "}"
}

func TestDepthCountsNestingOnly(t *testing.T) {
	for name, data := range map[string]string{
		"100 levels": nest(100),
		"wide":       `{"x":[` + strings.Repeat("[],", 500) + `{}]}`,
		"in text":    `{"x":"` + strings.Repeat(`[{\"`, 500) + `","y\\":"\\"}`,
	} {
		if _, err := ParseEvent([]byte(`{"type":"a","data":` + data + `}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBatch(t *testing.T) {
	events, err := ParseBatch([]byte(`{"events":[{"type":"a","data":{"n":1}}, {"type":"b","data":{"n":2},"id":"x"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	want := []Event{{Type: "a", Data: []byte(`{"n":1}`)}, {Type: "b", Data: []byte(`{"n":2}`), ID: "x"}}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, c := range map[string]struct{ body, want string }{
		"faults of all": {
			`{"events":[{"type":"a"},{"type":"b","data":{}},7,{"data":{},"typ":"x"}],"more":1}`,
			"invalid\n/events/0/data is missing\n/events/2 must be an object: {\"type\":\"…\",\"data\":{…}}\n" +
				"/events/3/typ is not known; an event has type, data, id, timestamp, tenant and deliver_at\n" +
				"/events/3/type is missing\n/more is not known; a batch has only events",
		},
		"no array":  {`{"events":{}}`, "invalid\n/events must be an array of events"},
		"none":      {`{"events":[]}`, "invalid\n/events holds 0 events; it must hold 1 to 1000"},
		"missing":   {`{}`, "invalid\n/events is missing"},
		"bare":      {`[]`, `invalid` + "\n" + ` must be an object: {"events":[…]}`},
		"duplicate": {`{"events":[],"events":[]}`, "malformed\n/events the name occurs twice in its object, at line 1, column 14"},
		"deep":      {`{"events":[{"type":"a","data":{}},{"type":"a","data":` + nest(101) + `}]}`, "malformed\n/events/1/data nests deeper than 100 levels"},
		"cut":       {`{"events":[{"type":"a","data":{}}`, "malformed\n/events the body ends within a value, at line 1, column 34"},
		"too many":  {`{"events":[` + strings.Repeat(`{"type":"a","data":{}},`, 1203) + `{}]}`, "invalid\n/events holds 1204 events; it must hold 1 to 1000"},
	} {
		_, err := ParseBatch([]byte(c.body))
		if got := faultsOf(t, err); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
}

func TestBatchWrongThroughoutIsAnsweredInShort(t *testing.T) {
	_, err := ParseBatch([]byte(`{"events":[` + strings.Repeat(`{},`, 999) + `{}]}`))
	e, _ := errors.AsType[*posthorn.Error](err)
	if e == nil || len(e.Faults) != 100 || !strings.Contains(e.Message, "first 100 of 2000 faults") {
		t.Errorf("got %.200v", err)
	}
}

func TestNDJSON(t *testing.T) {
	events, err := ParseNDJSON([]byte("{\"type\":\"a\",\"data\":{\"n\":1}}\r\n\n  \n{\"type\":\"b\",\"data\":{ }}"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Event{{Type: "a", Data: []byte(`{"n":1}`)}, {Type: "b", Data: []byte(`{ }`)}}, events); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	const good = "{\"type\":\"a\",\"data\":{}}\n"
	for name, c := range map[string]struct{ body, want string }{
		"faults of all": {good + "{\"type\":1}\n\n" + "{}\n", "invalid\n/events/1/type must be a string\n/events/1/data is missing\n/events/2/type is missing\n/events/2/data is missing"},
		"syntax":        {good + "\n" + "{\"type\":\"a\",}\n", "malformed\n/events/1 invalid character ',' at start of value at line 3, column 12"},
		"two on a line": {good + good[:len(good)-1] + good, "malformed\n/events/1 more follows after the end of the JSON value at line 2, column 23"},
		"over lines":    {"{\"type\":\n\"a\",\"data\":{}}", "malformed\n/events/0/type the body ends within a value, at line 2, column 1"},
		"blank":         {" \n\n", "malformed"},
		"empty":         {"", "malformed"},
		"too many":      {strings.Repeat(good, 1001), "invalid\n/events holds 1001 events; it must hold 1 to 1000"},
	} {
		_, err := ParseNDJSON([]byte(c.body))
		if got := faultsOf(t, err); got != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, c.want)
		}
	}
}

func FuzzParseEvent(f *testing.F) {
	for _, seed := range []string{
		`{"type":"cases.created","data":{"id":590,"n":[1.0,2e400,"\u003c"]}}`,
		`{"id":"x","type":"a","timestamp":"2026-04-29T09:10:00Z","data":{},"tenant":"t","deliver_at":"2026-04-29T09:10:00Z"}`,
		`{"type":"a","data":{"a":{"a":[[]]}}} `, `{"type":"a","data":{}`, "[", "", "{\"\xff",
	} {
		f.Add([]byte(seed))
	}
	at := time.Date(2026, 4, 29, 9, 10, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, body []byte) {
		before := bytes.Clone(body)
		e, err := ParseEvent(body)
		if !bytes.Equal(before, body) {
			t.Fatal("the body was written to")
		}
		if err != nil {
			faultsOf(t, err)
			return
		}
		// What parses parses again when rendered, to the same bytes of data.
		again := fmt.Appendf(nil, `{"type":%q,"data":%s}`, e.Type, e.Data)
		e2, err := ParseEvent(again)
		if err != nil || !bytes.Equal(e.Data, e2.Data) {
			t.Fatalf("%s parses again as %s, %v", e.Data, e2.Data, err)
		}
		stored := posthorn.Event{Key: e.ID, Type: e.Type, ID: 1, Body: posthorn.AppendBody(nil, e.ID, e.Type, at, e.Data)}
		if !bytes.Equal(stored.Data(), e.Data) {
			t.Fatalf("delivered data is %s, want %s", stored.Data(), e.Data)
		}
	})
}

func FuzzParseMany(f *testing.F) {
	f.Add([]byte(`{"events":[{"type":"a","data":{}}]}`))
	f.Add([]byte("{\"type\":\"a\",\"data\":{}}\n{\"type\":\"a\",\"data\":{}}\r\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, parse := range []func([]byte) ([]Event, error){ParseBatch, ParseNDJSON} {
			events, err := parse(body)
			if err != nil {
				faultsOf(t, err)
			} else if len(events) == 0 || len(events) > MaxBatchEvents {
				t.Fatalf("%d events were accepted", len(events))
			}
		}
	})
}

func BenchmarkParseEvent1KiB(b *testing.B) {
	body := oneKiB()
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseEvent(body); err != nil {
			b.Fatal(err)
		}
	}
}

func oneKiB() []byte {
	b := []byte(`{"type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{"id":590,"type":"relocation","status":"open"`)
	for i := 0; len(b) < 1000; i++ {
		b = fmt.Appendf(b, `,"member_%d":"value of member %d"`, i, i)
	}
	return append(b, "}}"...)
}

// Parsers are used again: what one event holds must not change with the next.
func TestEventsOutliveTheirParser(t *testing.T) {
	first, err := ParseEvent([]byte(`{"id":"first","type":"cases.created","data":{"n":"first"}}`))
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		if _, err := ParseEvent([]byte(`{"id":"other","type":"cases.updated","data":{"n":"other"}}`)); err != nil {
			t.Fatal(err)
		}
		if _, err := ParseEvent([]byte(`{"more":1}`)); len(faultsOf(t, err)) == 0 {
			t.Fatal("accepted")
		}
	}
	want := Event{ID: "first", Type: "cases.created", Data: []byte(`{"n":"first"}`)}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := ParseEvent([]byte(`{"type":"a","data":{}}`)); err != nil {
		t.Error("faults of another event were kept:", err)
	}
}
