package posthorn_test

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

func TestBodyKeepsDataByteForByte(t *testing.T) {
	data := "{ \"n\": 1.0, \"big\":12345678901234567890, \"s\":\"\\u003c/\\/\" }"
	at := time.Date(2026, 4, 29, 11, 10, 0, 123_999_999, time.FixedZone("", 2*3600))
	body := posthorn.AppendBody(nil, "order-1", "cases.updated", at, []byte(data))
	want := `{"id":"order-1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":` + data + `}`
	if string(body) != want {
		t.Errorf("body\n got %s\nwant %s", body, want)
	}
	e := posthorn.Event{Key: "order-1", Type: "cases.updated", Body: body}
	if string(e.Data()) != data {
		t.Errorf("Data() = %s", e.Data())
	}
	if got := len(body); got != len("order-1")+len("cases.updated")+len(data)+posthorn.BodyOverhead {
		t.Errorf("BodyOverhead is off: body has %d bytes", got)
	}
}

func TestFillRef(t *testing.T) {
	id := posthorn.MakeID(t0, 1, 2)
	body := posthorn.AppendBody(nil, "", "cases.closed", t0, []byte(`{}`))
	posthorn.FillRef(body, id)
	e := posthorn.Event{ID: id, Type: "cases.closed", Body: body}
	var got struct {
		ID   string          `json:"id"`
		Data json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.ID != id.Text("evt_") || got.ID != e.Ref() || string(e.Data()) != "{}" {
		t.Errorf("body %s: %v", body, err)
	}
	if (&posthorn.Event{}).Data() != nil {
		t.Error("Data of an erased body is not nil")
	}
}

func TestValidKey(t *testing.T) {
	for s, want := range map[string]bool{
		"a": true, "A-Z_09": true, strings.Repeat("x", 128): true, "evt": true,
		"": false, strings.Repeat("x", 129): false, "evt_1": false, "a.b": false, "a b": false, "ä": false, "a\x00": false,
	} {
		if posthorn.ValidKey(s) != want {
			t.Errorf("ValidKey(%q) = %v", s, !want)
		}
	}
}

func TestValidTenantName(t *testing.T) {
	for s, want := range map[string]bool{
		"acme": true, "A.b_c-9": true, strings.Repeat("x", 64): true,
		"": false, strings.Repeat("x", 65): false, ".a": false, "-a": false, "a/b": false, "a b": false, "é": false,
	} {
		if posthorn.ValidTenantName(s) != want {
			t.Errorf("ValidTenantName(%q) = %v", s, !want)
		}
	}
}

// Times are written as time.Format would.
func TestTimesAreWrittenAsFormatDoes(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	times := []time.Time{{}, time.Unix(0, 0), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC)}
	for range 1000 {
		times = append(times, time.Unix(random.Int64N(1<<36)-1<<35, random.Int64N(1e9)).In(time.FixedZone("", int(random.Int32N(50_000)-25_000))))
	}
	for _, at := range times {
		want := at.UTC().Format("2006-01-02T15:04:05.000Z")
		if got := string(posthorn.AppendTime([]byte("x"), at)); got != "x"+want {
			t.Errorf("AppendTime: %s, want %s", got, want)
		}
		if got := posthorn.FormatTime(at); got != want {
			t.Errorf("FormatTime: %s, want %s", got, want)
		}
	}
}
