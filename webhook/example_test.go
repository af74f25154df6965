package webhook_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

// send is what the sender does: it signs the body and posts it.
func send(h http.Handler, id, body, secret string) int {
	key, err := webhook.ParseSecret(secret)
	if err != nil {
		panic(err)
	}
	now := time.Now()
	r := httptest.NewRequest("POST", "/hooks", strings.NewReader(body))
	r.Header.Set(webhook.HeaderID, id)
	r.Header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	r.Header.Set(webhook.HeaderSignature, string(webhook.Sign(nil, id, now, []byte(body), key)))
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}

func ExampleReceiver() {
	secret := webhook.NewSecret() // in truth what creating the endpoint returned
	verifier, err := webhook.NewVerifier(secret)
	if err != nil {
		fmt.Println(err)
		return
	}
	receiver := &webhook.Receiver{
		Verifier: verifier,
		Refused:  func(_ *http.Request, err error) { fmt.Println("refused:", err) },
	}
	hooks := receiver.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		event := webhook.FromContext(r.Context())
		var data struct {
			ID int `json:"id"`
		}
		if err := event.Decode(&data); err != nil {
			http.Error(w, "not understood", http.StatusUnprocessableEntity) // it is sent again
			return
		}
		fmt.Println("handled:", event.ID, event.Type, data.ID)
		w.WriteHeader(http.StatusNoContent)
	}))

	body := `{"id":"evt_1","type":"cases.updated","timestamp":"2026-04-29T09:10:00.123Z","data":{"id":590}}`
	fmt.Println(send(hooks, "evt_1", body, secret))
	fmt.Println(send(hooks, "evt_1", body, secret)) // the same event again
	fmt.Println(send(hooks, "evt_2", body, webhook.NewSecret()))
	// Output:
	// handled: evt_1 cases.updated 590
	// 204
	// 200
	// refused: no signature matches; check the secret, and that the body is the exact bytes that came in
	// 401
}

func ExampleVerify() {
	secret, body := webhook.NewSecret(), []byte(`{"type":"cases.updated"}`)
	key, _ := webhook.ParseSecret(secret)
	now := time.Now()
	header := http.Header{}
	header.Set(webhook.HeaderID, "evt_1")
	header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Unix(), 10))
	header.Set(webhook.HeaderSignature, string(webhook.Sign(nil, "evt_1", now, body, key)))

	// While a secret is being rotated, give both.
	fmt.Println(webhook.Verify(header, body, webhook.NewSecret(), secret))

	header.Set(webhook.HeaderTimestamp, strconv.FormatInt(now.Add(-time.Hour).Unix(), 10))
	err := webhook.Verify(header, body, secret)
	fmt.Println(errors.Is(err, webhook.ErrTooOld))
	// Output:
	// <nil>
	// true
}
