package bench

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
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
	l := newLedger(c, 7) // two requests; the third would go beyond
	g := generator{config: c, ledger: l, request: publishing(c, server.URL, []string{"secret"}, shape{})}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"cases.tasks.bench0000 000000000", "cases.tasks.bench0001 000000001", "cases.tasks.bench0000 000000002",
		"cases.tasks.bench0001 000000003", "cases.tasks.bench0000 000000004", "cases.tasks.bench0001 000000005"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("published\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if r := l.report(); r.Accepted != 6 || r.Lost != 6 {
		t.Errorf("accepted %d, lost %d, want 6 and 6: there is no receiver", r.Accepted, r.Lost)
	}
}

func TestReportCounts(t *testing.T) {
	ms := func(n int) int64 { return int64(time.Duration(n) * time.Millisecond) }
	c := Default()
	c.Endpoints, c.FanOut, c.Hang = 2, 2, 1 // each event goes to both, the second hangs
	l := newLedger(c, 5)
	for i, at := range []int{0, 2000, 2000, 2000, 2000} {
		l.due[i] = ms(at)
	}
	l.next.Store(9)                                                // workers count on beyond the end
	l.accepted = []int64{ms(900), ms(2001), ms(2002), ms(2003), 0} // the last was refused
	for n, at := range []int{950, 2010, 2020, 0, 0} {
		l.received[2*n].Store(ms(at))
	}
	l.copies[4].Store(2)
	l.lastSent = ms(2500)
	l.last.Store(ms(3000))
	r := l.report()
	if r.Accepted != 4 || r.Delivered != 3 || r.Lost != 1 || r.Duplicates != 2 {
		t.Errorf("accepted %d, delivered %d, lost %d, duplicates %d; want 4, 3, 1, 2", r.Accepted, r.Delivered, r.Lost, r.Duplicates)
	}
	if math.Abs(r.Receipt.Max-20) > 0.1 || math.Abs(r.Publish.Max-3) > 0.1 {
		t.Errorf("receipt max %v, publish max %v; want 20 and 3 ms: the first second does not count", r.Receipt.Max, r.Publish.Max)
	}
	if math.Abs(r.AcceptedPerSecond-1.6) > 0.01 || math.Abs(r.DeliveredPerSecond-1) > 0.01 {
		t.Errorf("%v accepted and %v delivered a second, want 1.6 and 1", r.AcceptedPerSecond, r.DeliveredPerSecond)
	}
}

// Every event goes to endpoints of the tenant whose token its request has, the
// endpoints of a tenant have equal shares, and a share for bad ones is kept.
func TestEventsAreSharedOut(t *testing.T) {
	count := func(c Config, events int) (tenants, groups map[int]int) {
		tenants, groups = map[int]int{}, map[int]int{}
		for n := range events {
			tenants[c.tenantOf(n)]++
			groups[c.groupOf(n)]++
			if c.tenantOf(n) != c.tenantOf(n/c.Batch*c.Batch) {
				t.Fatalf("event %d has another tenant than the first of its batch", n)
			}
		}
		return tenants, groups
	}
	c := Default()
	c.Tenants, c.Endpoints, c.FanOut, c.Batch = 5, 100, 4, 10
	tenants, groups := count(c, 5*20*c.Batch)
	if len(tenants) != 5 || len(groups) != 5 {
		t.Errorf("%d tenants and %d groups, want 5 and 5: %v %v", len(tenants), len(groups), tenants, groups)
	}
	for g, n := range groups {
		if n != 200 {
			t.Errorf("group %d gets %d of 1000 events", g, n)
		}
	}
	c = Default()
	c.Endpoints, c.Hang, c.BadShare = 110, 100, 0.1
	_, groups = count(c, 10_000)
	bad := 0
	for g, n := range groups {
		if g >= 10 {
			bad += n
		} else if n != 900 {
			t.Errorf("good endpoint %d gets %d events, want 900", g, n)
		}
	}
	if bad != 1000 || len(groups) != 110 {
		t.Errorf("%d of 10000 events go to bad endpoints, want 1000; %d endpoints get any, want 110", bad, len(groups))
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
	l := newLedger(c, c.events())
	g := generator{config: c, ledger: l, request: publishing(c, server.URL, []string{"secret"}, shape{})}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := l.report()
	if r.Accepted != 50 {
		t.Errorf("%d events in 2.5 s at 20/s, want 50", r.Accepted)
	}
	// Ten events were due during the half second: a quarter of those counted.
	if r.Publish.P90 < 200 {
		t.Errorf("publish %v: the wait behind the slow answer is not in it", r.Publish)
	}
}

// The yardsticks' requests arrive as they are meant, each once. The relay runs in
// this process here, and as one of its own in TestRunMeasuresTheRealBinary.
func TestYardsticksCountAtTheReceiver(t *testing.T) {
	c := Default()
	c.Duration, c.Conns, c.Rate = 2*time.Second, 8, 0
	y, err := raw(t.Context(), c)
	if err != nil || y.PerSecond == 0 {
		t.Fatalf("raw: %v, %v", y, err)
	}
	c = c.plain()
	c.Duration = time.Minute // it ends with the last of the 500
	r, err := newReceiver(c)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	in, stop := io.Pipe()
	out, address := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Relay(t.Context(), r.url(0), in, address) }()
	line := make([]byte, 64)
	n, err := out.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	l := newLedger(c, 500)
	r.ledger.Store(l)
	g := generator{config: c, ledger: l, request: relaying(c, strings.TrimSpace(string(line[:n])))}
	if err := g.run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if report := l.report(); report.Accepted != 500 || report.Delivered != 500 || report.Lost+report.Duplicates != 0 {
		t.Errorf("relay: accepted %d, delivered %d, lost %d, duplicates %d", report.Accepted, report.Delivered, report.Lost, report.Duplicates)
	}
	stop.Close()
	if err := <-ended; err != nil {
		t.Errorf("the relay ended with %v", err)
	}
}

func TestValidateNamesTheFault(t *testing.T) {
	for want, set := range map[string]func(*Config){
		"endpoints":    func(c *Config) { c.Endpoints = 0 },
		"at least":     func(c *Config) { c.Endpoints, c.Hang, c.Fail = 2, 1, 1 },
		"conns":        func(c *Config) { c.Conns = 0 },
		"batch":        func(c *Config) { c.Batch = 1001 },
		"8 MiB":        func(c *Config) { c.Batch, c.BodySize = 1000, 100_000 },
		"body-size":    func(c *Config) { c.BodySize = 1 },
		"duration":     func(c *Config) { c.Duration = 0 },
		"rate":         func(c *Config) { c.Rate = -1 },
		"multiples":    func(c *Config) { c.Endpoints, c.Tenants = 10, 3 },
		"whole groups": func(c *Config) { c.Endpoints, c.FanOut = 10, 3 },
		"bad-share":    func(c *Config) { c.BadShare = 0.5 },
		"own":          func(c *Config) { c.Server, c.Backlog = "http://localhost:1", 10 },
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
	r := Report{Config: Default(), Refused: map[int]int{503: 2, 0: 1}, Relay: &Yardstick{PerSecond: 10}, Raw: &Yardstick{PerSecond: 20}}
	r.Print(&out)
	for _, want := range []string{"map[0:1 503:2]", "p99", "10/s", "20/s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if b, err := jsonv2.Marshal(r); err != nil || !json.Valid(b) {
		t.Errorf("-o json: %s, %v", b, err)
	}
}

func TestTableTakesMedians(t *testing.T) {
	p := Plan{}
	full := &node{c: p.fullStore()}
	var table Table
	for _, relay := range []float64{0.9, 0.5, 0.8} {
		r := round{full: full}
		r.single.Relay, r.single.Raw = &Yardstick{Ratio: relay, PerSecond: 1}, &Yardstick{PerSecond: 1}
		r.batch.Raw = &Yardstick{}
		r.slow.Relay, r.steady.Relay = &Yardstick{}, &Yardstick{}
		table.add(r.rows())
	}
	var out bytes.Buffer
	table.Print(&out)
	for _, want := range []string{"| at least 0.70 times | 0.80 times | 0.90, 0.50, 0.80 | met", "MISSED"} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("no %q in\n%s", want, &out)
		}
	}
	if table.Met() {
		t.Error("a table of nothing delivered is met")
	}
}

func TestPlotIsXML(t *testing.T) {
	c := Default()
	l := newLedger(c, 1000)
	for n := range l.due {
		l.due[n] = int64(time.Second) + int64(n)*int64(time.Millisecond)
		l.accepted[n] = l.due[n] + int64(n)*1000
		l.received[n].Store(l.due[n] + int64(n)*2000)
	}
	l.next.Store(1000)
	for name, r := range map[string]Report{"a load": l.report(), "nothing": {}} {
		var out bytes.Buffer
		if err := r.Plot(&out); err != nil {
			t.Fatal(err)
		}
		if err := xml.Unmarshal(out.Bytes(), new(struct{})); err != nil || strings.Contains(out.String(), "NaN") || strings.Contains(out.String(), "Inf") {
			t.Errorf("%s: %v in\n%.500s", name, err, &out)
		}
	}
}
