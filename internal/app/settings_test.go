package app

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/webhook"
)

// onBothStores runs a test on a service with each store.
func onBothStores(t *testing.T, test func(t *testing.T, s *service, api *client.Client)) {
	run := func(s *service) func(t *testing.T) {
		return func(t *testing.T) {
			api, err := client.New(client.Config{Server: s.base, Token: s.token(t, "acme")})
			if err != nil {
				t.Fatal(err)
			}
			test(t, s, api)
		}
	}
	t.Run("sqlite", func(t *testing.T) { run(serveStore(t, filepath.Join(t.TempDir(), "posthorn.db")))(t) })
	t.Run("postgres", func(t *testing.T) {
		url := pgtest.Database(t, "")
		s := serveStore(t, "unused", "POSTHORN_STORE="+url)
		s.path = url
		run(s)(t)
	})
}

// got is a request as a receiver saw it.
type got struct {
	path   string
	header http.Header
	body   []byte
}

// listener answers 204 and says what came.
func listener(t *testing.T) (url string, requests chan got) {
	requests = make(chan got, 100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- got{r.URL.Path, r.Header, body}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(server.Close)
	return server.URL, requests
}

func next(t *testing.T, requests chan got) got {
	t.Helper()
	select {
	case r := <-requests:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("nothing arrived")
		return got{}
	}
}

// TestSettingsAndSecretsReachTheWire changes them on a service that delivers, and
// looks at what a receiver gets.
func TestSettingsAndSecretsReachTheWire(t *testing.T) {
	onBothStores(t, func(t *testing.T, s *service, api *client.Client) {
		ctx := t.Context()
		url, requests := listener(t)
		elsewhere, others := listener(t)
		e, err := api.CreateEndpoint(ctx, client.NewEndpoint{URL: url + "/here", Events: []string{"cases.*"}})
		if err != nil {
			t.Fatal(err)
		}
		send := func(data string) int {
			t.Helper()
			a, err := api.Send(ctx, client.Event{Type: "cases.updated", Data: []byte(data)})
			if err != nil {
				t.Fatal(err)
			}
			return a.Deliveries
		}
		// verified checks how many signatures there are, and which secrets verify.
		verified := func(r got, signatures int, secrets map[string]bool) {
			t.Helper()
			if n := len(strings.Fields(r.header.Get(webhook.HeaderSignature))); n != signatures {
				t.Errorf("%d signatures, want %d", n, signatures)
			}
			for secret, want := range secrets {
				v, err := webhook.NewVerifier(secret)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.Verify(r.header, r.body); (err == nil) != want {
					t.Errorf("a secret verifies: %v, want %v", err, want)
				}
			}
		}
		first := e.Secret
		send(`{}`)
		verified(next(t, requests), 1, map[string]bool{first: true})

		// Both sign while they overlap, the current one first.
		rotated, err := api.RotateSecret(ctx, e.ID, client.Rotation{})
		if err != nil {
			t.Fatal(err)
		}
		send(`{}`)
		both := next(t, requests)
		verified(both, 2, map[string]bool{first: true, rotated.Secret: true})
		both.header.Set(webhook.HeaderSignature, strings.Fields(both.header.Get(webhook.HeaderSignature))[0])
		verified(both, 1, map[string]bool{first: false, rotated.Secret: true})

		// An overlap ends to the second, without anybody doing anything.
		soon := 2 * time.Second
		short, err := api.RotateSecret(ctx, e.ID, client.Rotation{Overlap: &soon})
		if err != nil {
			t.Fatal(err)
		}
		end := short.Previous[0].ExpiresAt
		eventually(t, "the end of the overlap", func() bool { return time.Now().After(end) })
		send(`{}`)
		verified(next(t, requests), 2, map[string]bool{first: true, rotated.Secret: false, short.Secret: true})
		none := time.Duration(0)
		last, err := api.RotateSecret(ctx, e.ID, client.Rotation{Overlap: &none})
		if err != nil {
			t.Fatal(err)
		}
		send(`{}`)
		verified(next(t, requests), 1, map[string]bool{first: false, short.Secret: false, last.Secret: true})
		if revealed, err := api.EndpointSecret(ctx, e.ID); err != nil || revealed.Secret != last.Secret || len(revealed.Previous) != 0 {
			t.Errorf("revealed %v, %v", revealed, err)
		}

		// Headers go along; another origin gets none of them.
		value, filter := "Bearer of-the-receiver", `data.country == "DE"`
		settings, err := api.UpdateSettings(ctx, e.ID, client.SettingsChange{Headers: map[string]*string{"Authorization": &value, "X-Empty": nil}, Filter: &filter})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]*string{"Authorization": nil}, settings.Headers); diff != "" || settings.Filter != filter || settings.ETag != `"2"` {
			t.Errorf("%+v", settings)
		}
		if n := send(`{"country":"DE"}`); n != 1 {
			t.Errorf("%d deliveries", n)
		}
		r := next(t, requests)
		if r.header.Get("Authorization") != value || r.header.Get("Content-Type") != "application/json" {
			t.Errorf("headers %v", r.header)
		}
		verified(r, 1, map[string]bool{last.Secret: true})
		there := elsewhere + "/there"
		if _, err := api.UpdateEndpoint(ctx, e.ID, client.EndpointChange{URL: &there}); err != nil {
			t.Fatal(err)
		}
		if n := send(`{"country":"FR"}`); n != 0 {
			t.Errorf("the filter lets %d through", n)
		}
		if n := send(`{}`); n != 1 {
			t.Errorf("a filter that fails keeps the event away: %d", n)
		}
		if r := next(t, others); r.header.Get("Authorization") != "" || string(r.body[len(r.body)-3:]) != "{}}" {
			t.Errorf("another origin was sent %v, %s", r.header, r.body)
		}
		var notes []string
		for d, err := range api.Deliveries(ctx, client.DeliveryFilter{Endpoint: e.ID}) {
			if err != nil {
				t.Fatal(err)
			}
			if d.Note != "" {
				notes = append(notes, d.Note)
			}
		}
		if len(notes) != 1 || !strings.HasPrefix(notes[0], "The filter failed: ") {
			t.Errorf("the log says %q", notes)
		}
		tried, err := api.TestFilter(ctx, e.ID, `data.country == "FR"`)
		if err != nil || tried.Matching != 1 || len(tried.Events) == 0 {
			t.Errorf("tried %+v, %v", tried, err)
		}
		if log := s.log.String(); strings.Contains(log, "of-the-receiver") || strings.Contains(log, "whsec_") {
			t.Error("a secret is in the log")
		}
		if s := fmt.Sprint(len(requests), len(others)); s != "00" && s != "0 0" {
			t.Errorf("more arrived than was sent: %s", s)
		}
	})
}
