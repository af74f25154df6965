package app

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// A part of a node that has work and does not move makes it unready within five
// seconds, and says which it is; a publish is answered within ten; and all goes on
// when the part moves again. One connection of two nodes' falls silent at a time.
func TestAPartThatDoesNotMoveMakesANodeUnready(t *testing.T) {
	pgtest.Database(t, "") // skips
	dir := pgtest.Socket(t)
	if dir == "" {
		t.Skip("POSTHORN_TEST_POSTGRES names a server without a socket in reach; this test parts a node from it")
	}
	for part, faults := range map[string][]ill.Fault{
		"publisher": {{Statement: "INSERT INTO events", Purpose: "posthorn hot"}},
		"recorder":  {{Statement: "COMMIT", Within: "WITH gone AS", Purpose: "posthorn hot"}},
		"scheduler": {{Statement: "FROM due WHERE run = 0 AND next_at <="}, {Statement: "FROM due WHERE run = 0 AND next_at <=", Nth: 2}},
		"renewals":  {{Statement: "UPDATE runs SET beats"}, {Statement: "UPDATE runs SET beats", Nth: 2}},
	} {
		t.Run(part, func(t *testing.T) {
			t.Parallel()
			name := pgtest.Name(pgtest.Database(t, ""))
			wire := ill.New(t, dir)
			keys := "POSTHORN_ENCRYPTION_KEYS=k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
			b := serveOn(t, pgtest.SocketURL(dir, name), keys)
			a := serveOn(t, wire.URL(name), keys)
			token := a.token(t, "acme")
			onA := must(client.New(client.Config{Server: a.base, Token: token}))(t)
			receiver, requests := listener(t)
			must(onA.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver, Events: []string{"cases.*"}}))(t)
			event := client.Event{Type: "cases.updated", Data: []byte(`{}`)}
			must(onA.Send(t.Context(), event))(t)
			next(t, requests)

			var strikes []*ill.Strike
			for _, f := range faults {
				f.At, f.Do = ill.Answer, ill.Silence
				strikes = append(strikes, wire.Strike(f))
			}
			published := make(chan int, 1)
			began := time.Now()
			go func() { published <- publishOnce(t, a, token) }()
			if part == "scheduler" { // it has work when something is due
				later := event
				later.DeliverAt = time.Now().Add(100 * time.Millisecond)
				must(onA.Send(t.Context(), later))(t)
				defer next(t, requests)
			}
			select {
			case <-strikes[0].Struck():
			case <-time.After(30 * time.Second):
				t.Fatal("nothing fell silent")
			}
			silent := time.Now()
			says := until(t, a, func(code int, says string) bool { return code == http.StatusServiceUnavailable })
			if took := time.Since(silent); took > 7*time.Second { // five, and a slow machine
				t.Errorf("that took %v", took)
			}
			if !strings.Contains(says, part) {
				t.Errorf("/readyz says %q", says)
			}
			code := <-published
			if took := time.Since(began); took > 12*time.Second { // ten, and a slow machine
				t.Errorf("the publish took %v", took)
			}
			if want := map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusAccepted}[part == "publisher"]; code != want {
				t.Errorf("the publish was answered %d, want %d", code, want)
			}
			next(t, requests) // it was stored all the same, or was answered
			until(t, a, func(code int, _ string) bool { return code == http.StatusOK })
			must(onA.Send(t.Context(), event))(t)
			next(t, requests)
			if says := until(t, b, func(code int, _ string) bool { return code == http.StatusOK }); says != "ready" {
				t.Errorf("the other node says %q", says)
			}
			tally.Count(t, "a part that has work and does not move makes its node unready, which says so, and publishing is answered", 1)
		})
	}
}

// publishOnce publishes an event, once.
func publishOnce(t *testing.T, s *service, token string) int {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.base+"/v2.3/webhooks/events", strings.NewReader(`{"type":"cases.updated","data":{}}`))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// until asks /readyz until it answers as wanted, and returns what it says.
func until(t *testing.T, s *service, want func(code int, says string) bool) string {
	t.Helper()
	last := ""
	for began := time.Now(); time.Since(began) < time.Minute; {
		resp, err := http.Get(s.base + "/readyz")
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if last = strings.TrimSpace(string(b)); want(resp.StatusCode, last) {
			return last
		}
		<-time.After(20 * time.Millisecond)
	}
	t.Fatalf("in the end /readyz says %q", last)
	return ""
}
