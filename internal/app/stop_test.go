package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// Neither a receiver that hangs nor a client that is slow makes an orderly stop a
// failure: what is not done in time is handed back, and the log says so.
func TestAStopThatCutsSomethingShortIsInOrder(t *testing.T) {
	s := serveForTest(t, "POSTHORN_DRAIN_TIMEOUT=300ms")
	token := s.token(t, "acme")
	arrived := make(chan struct{}, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- struct{}{}
		io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}))
	defer receiver.Close()
	s.request(t, token, "POST", "/endpoints", `{"url":"`+receiver.URL+`/","events":["cases.*"]}`, "")
	if status, _, body := s.request(t, token, "POST", "/events", `{"type":"cases.closed","data":{}}`, ""); status != http.StatusAccepted {
		t.Fatal(status, body)
	}
	<-arrived
	slow := s.dial(t)
	io.WriteString(slow, head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 1000\r\n")+"{")
	eventually(t, "the slow request", func() bool {
		_, figures := get(t, s.ops+"/metrics")
		return strings.Contains(figures, "posthorn_connections_open 2\n")
	})
	began := time.Now()
	if err := s.stop(); err != nil {
		t.Errorf("the stop failed: %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("it took %s", took)
	}
	if !strings.Contains(s.log.String(), "cut short") {
		t.Errorf("the log does not say that something was cut short:\n%s", s.log)
	}
}
