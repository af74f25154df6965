package client_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/posthorn/posthorn/client"
)

func Example() {
	// In place of a service, something that accepts each event.
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, `{"data":{"id":"case-590-closed","type":"cases.closed","timestamp":"2026-04-29T09:10:00.000Z","deliveries":2}}`)
	}))
	defer server.Close()

	c, err := client.New(client.Config{Server: server.URL, Token: "pht_example", HTTP: server.Client()})
	if err != nil {
		fmt.Println(err)
		return
	}
	accepted, err := c.Send(context.Background(), client.Event{
		Type: "cases.closed",
		ID:   "case-590-closed", // the same again would deliver nothing new
		Data: []byte(`{"case":{"id":590}}`),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%s goes to %d endpoints\n", accepted.ID, accepted.Deliveries)
	// Output: case-590-closed goes to 2 endpoints
}
