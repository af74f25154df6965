package app

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/tally"
)

// trial is an endpoint at a hostile receiver, and what its log must say.
type trial struct {
	hell.Row
	url string
	// receiver counts what came over the wire; nil if nothing listens.
	receiver *hell.Receiver
	requests int // that must have come, of one attempt
	conns    int
}

// TestReceiversFromHell lets a whole service deliver to every kind of receiver
// that there is a row for, all at once, and reads in the API what came of it.
// Each attempt is one request on the wire, ends in time, and keeps little.
func TestReceiversFromHell(t *testing.T) {
	ca := hell.NewAuthority(t)
	trials := slices.Concat(answers(t, nil), answers(t, ca.Server(t, nil)), handshakes(t, ca), sockets(t), names(t))
	pem := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(pem, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	w := networkForTest(t, hostileZone, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8", "POSTHORN_EGRESS_CA="+pem)
	byID := map[string]*trial{}
	for i := range trials {
		byID[w.endpoint(t, trials[i].url)] = &trials[i]
	}
	log := w.deliver(t, `{"text":"`+strings.Repeat("x", 6<<10)+`"}`)
	if len(log) != len(trials) {
		t.Errorf("%d deliveries for %d endpoints", len(log), len(trials))
	}
	for id, d := range log {
		checkTrial(t, byID[id], d)
	}
	tally.Count(t, "every hostile receiver ends as its class in the log, in time, one request", len(trials))
}

func checkTrial(t *testing.T, tr *trial, d *client.Delivery) {
	t.Helper()
	state := "failed"
	if tr.Class == posthorn.ClassOK {
		state = "succeeded"
	}
	if d.State != state || len(d.Attempts) != 1 {
		t.Errorf("%s: %s after %d attempts, want %s after one", tr.Name, d.State, len(d.Attempts), state)
		return
	}
	a := d.Attempts[0]
	if a.Class != tr.Class.String() || a.Status != tr.Status || a.ResponseBodyNote != tr.Note || !strings.Contains(a.Explanation, tr.Detail) {
		t.Errorf("%s: class %s, status %d, body note %q: %s; want %v, %d, %q, %q", tr.Name, a.Class, a.Status, a.ResponseBodyNote, a.Explanation, tr.Class, tr.Status, tr.Note, tr.Detail)
	}
	// What a loaded machine needs for all of them at once comes on top.
	if a.DurationMS > 1000*2*limitSeconds {
		t.Errorf("%s: the attempt took %v ms with a limit of %d s", tr.Name, a.DurationMS, limitSeconds)
	}
	if len(a.ResponseBody) > posthorn.MaxSnippet*2 { // as JSON text, bytes may take more room
		t.Errorf("%s: %d bytes of the body are kept", tr.Name, len(a.ResponseBody))
	}
	addressFree(t, tr.Name, a.Explanation)
	if tr.receiver == nil {
		return
	}
	if conns, requests := tr.receiver.Counts(); conns != tr.conns || requests != tr.requests {
		t.Errorf("%s: %d connections and %d requests at the receiver, want %d and %d", tr.Name, conns, requests, tr.conns, tr.requests)
	}
}

func answers(t *testing.T, config *tls.Config) (trials []trial) {
	for _, row := range hell.Answers {
		r := hell.Listen(t, config, row.Serve)
		tr := trial{Row: row, url: r.URL(), receiver: r, requests: 1, conns: 1}
		if config != nil {
			tr.Name, tr.url = "TLS: "+tr.Name, r.URLS()
		}
		trials = append(trials, tr)
	}
	return trials
}

func handshakes(t *testing.T, ca *hell.Authority) (trials []trial) {
	for _, h := range hell.Handshakes(t, ca, hell.NewAuthority(t)) {
		r := hell.Listen(t, h.Config, hell.Answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
		tr := trial{Row: hell.Row{Name: "handshake: " + h.Name, Class: h.Class, Detail: h.Detail}, url: r.URLS(), receiver: r, conns: 1}
		if h.Class == posthorn.ClassOK {
			tr.Status, tr.requests = 200, 1
		}
		trials = append(trials, tr)
	}
	for _, h := range hell.NoTLS {
		r := hell.Listen(t, nil, func(_ *hell.Receiver, c net.Conn) { h.Serve(c) })
		trials = append(trials, trial{Row: hell.Row{Name: "no TLS: " + h.Name, Class: h.Class, Detail: h.Detail}, url: r.URLS(), receiver: r, conns: 1})
	}
	for name, config := range map[string]*tls.Config{"plain": nil, "TLS": ca.Server(t, nil)} {
		r := hell.Listen(t, config, hell.HTTP2Only)
		url := r.URL()
		if config != nil {
			url = r.URLS()
		}
		trials = append(trials, trial{Row: hell.Row{Name: "HTTP/2 only, " + name, Class: posthorn.ClassProtocol}, url: url, receiver: r, conns: 1})
	}
	return trials
}

// sockets are receivers that do not read what they are sent.
func sockets(t *testing.T) (trials []trial) {
	add := func(row hell.Row, serve func(*hell.Receiver, net.Conn)) {
		r := hell.Listen(t, nil, serve)
		trials = append(trials, trial{Row: row, url: r.URL(), receiver: r, conns: 1})
	}
	early := func(answer string) func(*hell.Receiver, net.Conn) {
		return func(_ *hell.Receiver, c net.Conn) {
			io.WriteString(c, answer)
			bufio.NewReader(c).ReadByte()
			hell.Stall(c)
		}
	}
	add(hell.Row{Name: "never reads", Class: posthorn.ClassTimeout}, func(_ *hell.Receiver, c net.Conn) {
		c.(*net.TCPConn).SetReadBuffer(4 << 10)
		<-t.Context().Done()
	})
	add(hell.Row{Name: "413 before the request is read", Class: posthorn.ClassHTTPStatus, Status: 413}, early("HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"))
	add(hell.Row{Name: "200 before the request is read", Status: 200}, early("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	add(hell.Row{Name: "reset at accept", Class: posthorn.ClassReset}, func(_ *hell.Receiver, c net.Conn) { hell.Reset(c) })
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	return append(trials, trial{Row: hell.Row{Name: "port closed", Class: posthorn.ClassConnect, Detail: "connection refused"}, url: "http://" + ln.Addr().String() + "/"})
}

// hostileZone is what the name server says of the names below.
func hostileZone(name string, _ int) ([]string, int) {
	label, _, _ := strings.Cut(name, ".")
	if rest, ok := strings.CutPrefix(label, "rcode-"); ok {
		rcode, _ := strconv.Atoi(rest)
		return nil, rcode
	}
	switch label {
	case "empty":
		return []string{}, 0
	case "private":
		return []string{"10.0.0.1"}, 0
	case "good":
		return []string{"127.0.0.1"}, 0
	}
	return nil, 0 // no answer
}

func names(t *testing.T) (trials []trial) {
	good := hell.Listen(t, nil, hell.Answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	_, port, _ := net.SplitHostPort(good.Addr().String())
	for _, row := range []hell.Row{
		{Name: "good", Status: 200},
		{Name: "rcode-3", Class: posthorn.ClassDNS, Detail: "no such host"},
		{Name: "rcode-2", Class: posthorn.ClassDNS, Detail: "the name servers did not give an answer"},
		{Name: "rcode-5", Class: posthorn.ClassDNS, Detail: "the name servers did not give an answer"},
		{Name: "empty", Class: posthorn.ClassDNS, Detail: "no such host"},
		{Name: "silent", Class: posthorn.ClassDNS, Detail: "the name servers did not answer in time"},
		{Name: "private", Class: posthorn.ClassRefused},
	} {
		trials = append(trials, trial{Row: row, url: fmt.Sprintf("http://%s.example.com:%s/", row.Name, port), receiver: good, conns: 1, requests: 1})
	}
	return trials
}

// TestOneRequestForEachAttempt counts at the receivers, over kept connections
// that turn out to be closed and over repeated attempts.
func TestOneRequestForEachAttempt(t *testing.T) {
	ca := hell.NewAuthority(t)
	pem := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(pem, ca.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	trials := slices.DeleteFunc(slices.Concat(answers(t, nil), answers(t, ca.Server(t, nil))), func(tr trial) bool {
		return tr.Class == posthorn.ClassTimeout || tr.Note == "timeout" || tr.Status == 410 || tr.Status == 429 || tr.Status == 503
	})
	secondTime := hell.Listen(t, nil, func(r *hell.Receiver, c net.Conn) {
		br := bufio.NewReader(c)
		if _, err := r.Read(br); err == nil {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			r.Read(br) // and no answer
		}
	})
	trials = append(trials, trial{Row: hell.Row{Name: "answers the first request of a connection only"}, url: secondTime.URL(), receiver: secondTime})
	w := networkForTest(t, nil, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8", "POSTHORN_EGRESS_CA="+pem, "POSTHORN_RETRY_SCHEDULE=20ms")
	byID, attempts, all := map[string]*trial{}, map[string]int{}, 0
	for i := range trials {
		byID[w.endpoint(t, trials[i].url)] = &trials[i]
	}
	const events = 2 // four attempts: after five failures a lane waits
	for n := range events {
		for id, d := range w.deliver(t, fmt.Sprintf(`{"n":%d}`, n)) {
			attempts[id] += d.AttemptsMade
			all += d.AttemptsMade
		}
	}
	for id, tr := range byID {
		if _, requests := tr.receiver.Counts(); requests != attempts[id] {
			t.Errorf("%s: %d requests at the receiver for %d attempts", tr.Name, requests, attempts[id])
		}
		if ids := tr.receiver.IDs(); len(ids) != events {
			t.Errorf("%s: %d webhook-ids for %d events: %v", tr.Name, len(ids), events, ids)
		}
	}
	tally.Count(t, "one attempt is one request, counted at the receiver", all)
}
