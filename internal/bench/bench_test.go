package bench

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
)

func TestDataIsAsLargeAsAskedAndNumbered(t *testing.T) {
	for _, size := range []int{minBodySize, 100, 512, 1024, 64 << 10} {
		text := data(size)
		if !json.Valid([]byte(text)) || len(text) != size {
			t.Errorf("data(%d): %d bytes, valid %v: %.120s", size, len(text), json.Valid([]byte(text)), text)
		}
		body := posthorn.AppendBody(nil, "", eventType(3), time.Now(), []byte(text))
		if n := number(body); n != 0 {
			t.Errorf("data(%d): number %d, want 0", size, n)
		}
	}
}

// The requests are patched bytes: any HTTP server and JSON parser must read
// what was meant, for every event of a batch.
func TestRequestsSayWhatIsMeant(t *testing.T) {
	var got []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		var b struct {
			Events []struct {
				Type string
				Data struct{ N string }
			}
		}
		if err := json.Unmarshal(body, &b); err != nil {
			t.Errorf("%v in %s", err, body)
		}
		for _, e := range b.Events {
			got = append(got, e.Type+" "+e.Data.N)
		}
		if r.Header.Get("Authorization") != "Bearer secret" || r.URL.Path != "/v2.3/webhooks/events/batch" {
			t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	c := Default()
	c.Batch, c.Endpoints, c.Conns = 3, 2, 1
	l := newLedger(7) // two requests; the third would go beyond
	g := generator{config: c, ledger: l, request: publishing(c, proof.API{URL: server.URL, Token: "secret"})}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"cases.tasks.bench0000 000000000", "cases.tasks.bench0001 000000001", "cases.tasks.bench0000 000000002",
		"cases.tasks.bench0001 000000003", "cases.tasks.bench0000 000000004", "cases.tasks.bench0001 000000005"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("published\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := l.report(c, func(int) bool { return true }); r.Accepted != 6 || r.Lost != 6 {
		t.Errorf("accepted %d, lost %d, want 6 and 6: there is no receiver", r.Accepted, r.Lost)
	}
}

func TestReportCounts(t *testing.T) {
	ms := func(n int) int64 { return int64(time.Duration(n) * time.Millisecond) }
	l := newLedger(5)
	for i, at := range []int{0, 2000, 2000, 2000, 2000} {
		l.due[i] = ms(at)
	}
	l.accepted = []int64{ms(900), ms(2001), ms(2002), ms(2003), 0} // the last was refused
	for n, at := range []int{950, 2010, 2020, 0, 0} {
		l.received[n].Store(ms(at))
	}
	l.copies[2].Store(2)
	l.lastSent = ms(2500)
	l.last.Store(ms(3000))
	r := l.report(Config{}, func(n int) bool { return true })
	if r.Accepted != 4 || r.Lost != 1 || r.Duplicates != 2 {
		t.Errorf("accepted %d, lost %d, duplicates %d; want 4, 1, 2", r.Accepted, r.Lost, r.Duplicates)
	}
	if math.Abs(r.Receipt.Max-20) > 0.1 || math.Abs(r.Publish.Max-3) > 0.1 {
		t.Errorf("receipt max %v, publish max %v; want 20 and 3 ms: the first second does not count", r.Receipt.Max, r.Publish.Max)
	}
	if math.Abs(r.AcceptedPerSecond-1.6) > 0.01 || math.Abs(r.DeliveredPerSecond-1) > 0.01 {
		t.Errorf("%v accepted and %v delivered a second, want 1.6 and 1", r.AcceptedPerSecond, r.DeliveredPerSecond)
	}
	// Endpoints that never answer are not asked for their events.
	if r = l.report(Config{}, func(n int) bool { return n != 3 }); r.Lost != 0 {
		t.Errorf("lost %d of an endpoint that hangs, want 0", r.Lost)
	}
}

// In an open loop a slow answer makes the events behind it late, and the report
// says so: it counts from when they were due.
func TestOpenLoopCountsFromWhenEventsWereDue(t *testing.T) {
	served := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if served++; served == 30 {
			hold := time.NewTimer(500 * time.Millisecond)
			<-hold.C
		}
		w.WriteHeader(http.StatusAccepted)
	}))
	defer server.Close()
	c := Default()
	c.Rate, c.Conns, c.Duration = 20, 1, 2500*time.Millisecond
	l := newLedger(c.cells())
	g := generator{config: c, ledger: l, request: publishing(c, proof.API{URL: server.URL, Token: "secret"})}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := l.report(c, func(int) bool { return true })
	if r.Accepted != 50 {
		t.Errorf("%d events in 2.5 s at 20/s, want 50", r.Accepted)
	}
	// Ten events were due during the half second: a quarter of those counted.
	if r.Publish.P90 < 200 {
		t.Errorf("publish %v: the wait behind the slow answer is not in it", r.Publish)
	}
}

func TestCeilingCountsAtTheReceiver(t *testing.T) {
	r, err := newReceiver(1, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	c := Default()
	c.Duration, c.Conns = 2*time.Second, 8
	perSecond, err := ceiling(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	l := r.ledger.Load()
	if report := l.report(c, r.healthy); report.Lost != 0 || report.Duplicates != 0 || report.Accepted == 0 || perSecond == 0 {
		t.Errorf("accepted %d, lost %d, duplicates %d, %.0f/s", report.Accepted, report.Lost, report.Duplicates, perSecond)
	}
}

func TestValidateNamesTheFault(t *testing.T) {
	for want, set := range map[string]func(*Config){
		"endpoints": func(c *Config) { c.Endpoints = 0 },
		"at least":  func(c *Config) { c.Endpoints, c.Hang, c.Fail = 2, 1, 1 },
		"conns":     func(c *Config) { c.Conns = 0 },
		"batch":     func(c *Config) { c.Batch = 1001 },
		"8 MiB":     func(c *Config) { c.Batch, c.BodySize = 1000, 100_000 },
		"body-size": func(c *Config) { c.BodySize = 1 },
		"duration":  func(c *Config) { c.Duration = 0 },
		"rate":      func(c *Config) { c.Rate = -1 },
	} {
		c := Default()
		set(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func TestReportsPrint(t *testing.T) {
	var out bytes.Buffer
	s := Suite{Latency: Report{Refused: map[int]int{503: 2, 0: 1}}}
	s.Bars = s.bars()
	s.Print(&out)
	for _, want := range []string{"map[0:1 503:2]", "MISSED", "met", "p99"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if b, err := jsonv2.Marshal(s); err != nil || !json.Valid(b) {
		t.Errorf("-o json: %s, %v", b, err)
	}
	if s.Met() {
		t.Error("an empty suite reaches 3,000 events/s")
	}
}
