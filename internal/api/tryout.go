package api

import (
	"fmt"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/publish"
)

// EndpointTest is the body of POST /endpoints/{webhookId}/test.
type EndpointTest struct {
	Type field[string] `json:"type,omitempty" doc:"Whose example of the catalogue is sent; webhooks.ping by default."`
}

// TestedEndpoint is the answer to it.
type TestedEndpoint struct {
	ID        string `json:"id" doc:"The test's event, which the receiver gets as webhook-id."`
	Type      string `json:"type"`
	Timestamp string `json:"timestamp" format:"date-time"`
	Delivery  string `json:"delivery" doc:"GET /deliveries/{deliveryId} shows what comes of it."`
}

func (s *server) testOperations() []*operation {
	body := jsonBody[EndpointTest](`{"type": "cases.updated"}`)
	body.optional = true
	return []*operation{{
		id: "test-endpoint", method: "POST", path: "/endpoints/{webhookId}/test", tag: "Endpoints", scope: access.ScopeWrite,
		summary: "Send a test to an endpoint",
		description: "Sends webhooks.ping, or the catalogue's example of a type, to this endpoint alone, whatever it subscribes to and paused or not: at once, beside what waits for it, and once. " +
			"It is signed as all are and carries posthorn-test: true; what comes of it changes neither health nor statistics, and it is never replayed. Ten a minute for each endpoint.",
		body:     body,
		success:  []success{{status: 202, doc: "The test is durable and under way.", model: reflect.TypeFor[answer[TestedEndpoint]]()}},
		failures: []posthorn.Code{posthorn.NotFound},
		handle:   s.testEndpoint,
	}}
}

func (s *server) testEndpoint(q *request) (*reply, error) {
	e, err := s.endpoint(q)
	if err != nil {
		return nil, err
	}
	eventType, data, err := s.testData(q, &e)
	if err != nil {
		return nil, err
	}
	if wait := s.testing.take(e.ID, q.at); wait > 0 {
		return nil, &posthorn.Error{Code: posthorn.RateLimited, RetryAfter: wait,
			Message: fmt.Sprintf("An endpoint can be tested %d times a minute; wait and try again.", testsAMinute)}
	}
	var answer func(publish.Tested) []byte
	var sealing error
	if q.once != nil {
		answer = func(t publish.Tested) []byte {
			rep, err := testReply(&t)
			if err == nil {
				var sealed []byte
				if sealed, err = s.sealAnswer(q.tenant.ID, rep); err == nil {
					return sealed
				}
			}
			sealing = err
			return nil
		}
	}
	tested, err := s.Publish.Test(q.Context(), q.tenant, e.ID, eventType, data, q.once, answer)
	if err != nil {
		return nil, err
	}
	if sealing != nil {
		return nil, sealing
	}
	return testReply(&tested)
}

func testReply(t *publish.Tested) (*reply, error) {
	return ok(http.StatusAccepted, TestedEndpoint{
		ID: t.Ref, Type: t.Type, Timestamp: posthorn.FormatTime(t.Timestamp), Delivery: t.Delivery.Text(posthorn.DeliveryPrefix),
	})
}

// testData is what the body asks for.
func (s *server) testData(q *request, e *posthorn.Endpoint) (eventType string, data []byte, err error) {
	var in EndpointTest
	if len(q.body) > 0 {
		faults, err := decode(q.body, &in)
		if err == nil {
			err = faults.err()
		}
		if err != nil {
			return "", nil, err
		}
	}
	if !in.Type.Set || in.Type.V == posthorn.TypePing {
		data, err = json.Marshal(map[string]string{"endpoint": e.Ref})
		return posthorn.TypePing, data, err
	}
	t, known := s.Catalog.Lookup(in.Type.V)
	if !known || t.Namespace || t.Group() || len(t.Example) == 0 {
		detail := "is no type with an example in the catalogue; GET /event-types lists them"
		if near := s.Catalog.Suggest(in.Type.V); near != "" && near != in.Type.V {
			detail += "; the nearest is " + near
		}
		return "", nil, &posthorn.Error{Code: posthorn.Invalid, Message: invalidBody, Faults: []posthorn.Fault{{Pointer: "/type", Detail: detail}}}
	}
	return t.Name, t.Example, nil
}

const (
	testsAMinute = 10
	// maxTestRates bounds the memory; who is forgotten may test anew.
	maxTestRates = 10_000
)

// testRates remembers when endpoints were tested last, as far as this node knows.
type testRates struct {
	mu sync.Mutex
	of map[int64]*[testsAMinute]time.Time // the oldest is overwritten next
}

// take counts a test, or says how long to wait for the next one.
func (r *testRates) take(endpoint int64, now time.Time) (wait time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	times := r.of[endpoint]
	if times == nil {
		if r.of == nil || len(r.of) >= maxTestRates {
			r.of = make(map[int64]*[testsAMinute]time.Time)
		}
		times = new([testsAMinute]time.Time)
		r.of[endpoint] = times
	}
	if wait = times[0].Add(time.Minute).Sub(now); wait > 0 && !times[0].IsZero() && wait <= time.Minute {
		return wait
	}
	copy(times[:], times[1:])
	times[testsAMinute-1] = now
	return 0
}
