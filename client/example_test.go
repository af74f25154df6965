package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"time"

	"github.com/posthorn/posthorn/client"
)

// serve stands for a service that answers all with this.
func serve(status int, contentType, body string) (c *client.Client, stop func()) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}))
	c, err := client.New(client.Config{Server: server.URL, Token: "pht_example"})
	if err != nil {
		panic(err)
	}
	return c, server.Close
}

// A problem that the service answers with is a value: its status, its sentence,
// and each fault of the body with the pointer to it.
func ExampleError() {
	c, stop := serve(422, "application/problem+json", `{"status":422,"title":"Invalid","detail":"The endpoint is invalid.",
		"errors":[{"pointer":"/url","detail":"must begin with https://"},{"pointer":"/events/0","detail":"matches no event type"}]}`)
	defer stop()
	_, err := c.CreateEndpoint(context.Background(), client.NewEndpoint{URL: "http://x", Events: []string{"case.*"}})
	if problem, ok := errors.AsType[*client.Error](err); ok {
		fmt.Println(problem.Status, problem.Detail)
		for _, f := range problem.Faults {
			fmt.Println(f.Pointer, f.Detail)
		}
	}
	// Output:
	// 422 The endpoint is invalid.
	// /url must begin with https://
	// /events/0 matches no event type
}

// Lists ask for the next page when it is needed, and end where the loop does.
func ExampleClient_Deliveries() {
	c, stop := serve(200, "application/json", `{"data":[
		{"id":"dlv_1","event_type":"cases.closed","state":"failed","attempts":[]},
		{"id":"dlv_2","event_type":"cases.updated","state":"failed","attempts":[]}],"next_cursor":null}`)
	defer stop()
	for d, err := range c.Deliveries(context.Background(), client.DeliveryFilter{State: "failed"}) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(d.ID, d.EventType)
	}
	// Output:
	// dlv_1 cases.closed
	// dlv_2 cases.updated
}

// A change that must not overwrite somebody else's names the revision it is made
// upon.
func ExampleClient_UpdateEndpoint() {
	c, stop := serve(412, "application/problem+json", `{"status":412,"title":"Precondition failed","detail":"The endpoint was changed since."}`)
	defer stop()
	paused := "paused"
	_, err := c.UpdateEndpoint(context.Background(), "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", client.EndpointChange{Status: &paused, IfMatch: `"3"`})
	fmt.Println(err)
	// Output: The endpoint was changed since.
}

func ExampleWithIdempotencyKey() {
	c, stop := serve(201, "application/json", `{"data":{"id":"wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW"}}`)
	defer stop()
	// Made again by a program that was restarted, this makes no second endpoint.
	ctx := client.WithIdempotencyKey(context.Background(), "set-up-production")
	e, err := c.CreateEndpoint(ctx, client.NewEndpoint{URL: "https://partner.example.com/hooks", Events: []string{"cases.*"}})
	fmt.Println(e.ID, err)
	// Output: wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW <nil>
}

func ExampleClient_EndpointStats() {
	c, stop := serve(200, "application/json", `{"data":{"since":"2026-04-28T09:00:00.000Z","until":"2026-04-29T09:10:00.000Z","slot_seconds":3600,
		"attempts":{"succeeded":990,"failed":10},"success_rate":0.99,
		"latency":{"p50":{"estimate_ms":84.2,"over_ms":30,"at_most_ms":100}},"series":[]}}`)
	defer stop()
	s, err := c.EndpointStats(context.Background(), "wh_01J1C6ZGQ6FQTH2X6M2VS3P0XW", time.Time{}) // the last 24 hours
	if err != nil {
		fmt.Println(err)
		return
	}
	p50 := s.Latency.P50
	fmt.Printf("%.1f %% of %d, half within about %.0f ms (%.0f to %.0f)\n",
		*s.SuccessRate*100, s.Attempts.Succeeded+s.Attempts.Failed, *p50.EstimateMS, *p50.OverMS, *p50.AtMostMS)
	// Output: 99.0 % of 1000, half within about 84 ms (30 to 100)
}

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
