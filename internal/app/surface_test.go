package app

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/store"
)

// superuser makes a token of the platform with all scopes, by the store.
func (s *service) superuser(t *testing.T) string {
	t.Helper()
	admin := must(OpenStore(t.Context(), s.path))(t)
	defer admin.Close()
	text, hash := access.NewToken()
	at := time.Now()
	must(admin.CreateToken(t.Context(), store.Change{Actor: "test", At: at}, store.Token{
		Ref: posthorn.NewRef(posthorn.TokenPrefix, at), Hash: hash, CreatedAt: at, Scopes: access.Scopes(),
	}))(t)
	return text
}

// Every operation of the description is called over HTTP with success, on a service
// on each store; every answer, refusals too, is as described. Only the outbox's two
// changes have nothing to change on SQLite, which has no outbox.
func TestEveryOperationOnEachStore(t *testing.T) {
	onEachStore(t, func(t *testing.T, path string) {
		s := serveOn(t, path, "POSTHORN_RETRY_SCHEDULE=1h")
		d := describedBy(t, s.base)
		platform := caller{described: d, token: s.superuser(t)}
		receiver := newMendable(t)

		platform.call(t, 201, "POST", "/tenants", `{"name":"acme"}`)
		platform.call(t, 200, "GET", "/tenants", "")
		platform.call(t, 200, "GET", "/tenants/acme", "")
		made := platform.call(t, 201, "POST", "/tokens", `{"tenant":"acme","name":"ci","scopes":["webhooks:read","webhooks:write","events:publish"]}`)
		platform.call(t, 200, "GET", "/tokens", "")
		acme := caller{described: d, token: made.text("data.token")}
		other := caller{described: d, token: s.token(t, "other")}

		endpoint := callEndpoints(t, acme, receiver)
		event, delivery := callEvents(t, acme, receiver, endpoint)
		callRedelivery(t, acme, receiver, endpoint, event, delivery)
		replay := callReplays(t, acme, endpoint)
		export := callTheRest(t, acme, endpoint)
		callPlatform(t, platform, acme)
		callOutbox(t, platform, path)

		// What is another's is as unknown as what is nowhere.
		for _, missing := range []caller{other, acme} {
			ids := []string{endpoint, event, delivery, replay, export}
			if missing.token == acme.token {
				ids = []string{"wh_none", "evt_none", "dlv_none", "rpl_none", "exp_none"}
			}
			refuseAll(t, missing, ids)
		}

		preferring := acme
		preferring.header = []string{"Prefer", "return=representation"}
		acme.call(t, 204, "DELETE", "/events/"+event+"/payload", "")
		preferring.call(t, 200, "DELETE", "/events/"+event+"/payload", "")
		preferring.call(t, 200, "DELETE", "/endpoints/"+endpoint, "")
		acme.call(t, 404, "DELETE", "/endpoints/"+endpoint, "")
		platform.call(t, 204, "DELETE", "/tokens/"+made.text("data.id"), "")
		acme.call(t, 401, "GET", "/endpoints", "")
		platform.call(t, 204, "DELETE", "/tenants/acme", "")
		platform.call(t, 200, "GET", "/deletions", "")

		want := ""
		if !strings.Contains(path, "://") {
			want = "DELETE /outbox/{outboxId}, POST /outbox/{outboxId}/retry"
		}
		if left := strings.Join(d.uncalled(), ", "); left != want {
			t.Errorf("never called: %s; want %q", left, want)
		}
	})
}

func callEndpoints(t *testing.T, acme caller, receiver *mendable) (endpoint string) {
	body := `{"url":"` + receiver.URL + `","events":["cases.*"]}`
	endpoint = acme.call(t, 201, "POST", "/endpoints", body).text("data.id")
	at := "/endpoints/" + endpoint
	acme.call(t, 200, "GET", "/endpoints", "")
	acme.call(t, 200, "GET", at, "")
	acme.call(t, 200, "PATCH", at, `{"description":"Production"}`)
	acme.call(t, 422, "PATCH", at, `{"events":["nothing.like.it"]}`)
	acme.call(t, 200, "GET", at+"/secret", "")
	acme.call(t, 200, "POST", at+"/secret/rotate", `{"overlap_seconds":3600}`)
	acme.call(t, 200, "GET", at+"/settings", "")
	acme.call(t, 200, "PATCH", at+"/settings", `{"headers":{"X-Key":"v"},"timeout_seconds":5,"filter":"data.n != 13"}`)
	acme.call(t, 422, "PATCH", at+"/settings", `{"filter":"data.n =="}`)
	acme.call(t, 200, "GET", "/event-types", "")
	acme.call(t, 200, "GET", "/event-types/cases.updated", "")
	return endpoint
}

// attempts waits until a delivery has had so many attempts.
func attempts(t *testing.T, acme caller, delivery string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " attempts"), func() bool {
		return strings.Contains(acme.call(t, 200, "GET", "/deliveries/"+delivery, "").body, fmt.Sprintf(`"attempts_made":%d,`, n))
	})
}

func callEvents(t *testing.T, acme caller, receiver *mendable, endpoint string) (event, delivery string) {
	receiver.set(true)
	event = acme.call(t, 202, "POST", "/events", `{"type":"cases.updated","data":{"n":1,"hard":true}}`).text("data.id")
	acme.call(t, 202, "POST", "/events/batch", `{"events":[{"type":"cases.updated","data":{"n":2}},{"type":"cases.closed","data":{"n":3}}]}`)
	acme.call(t, 400, "POST", "/events", `{"type":"cases.updated","data":{"n":1,"n":2}}`)
	acme.call(t, 422, "POST", "/events", `{"type":"no.such","data":{}}`)
	acme.call(t, 200, "GET", "/events?type=cases.*", "")
	acme.call(t, 200, "GET", "/events/"+event, "")
	acme.call(t, 400, "GET", "/deliveries?cursor=x", "")
	delivery = acme.call(t, 200, "GET", "/deliveries?event="+event, "").text("data.0.id")
	attempts(t, acme, delivery, 1)
	acme.call(t, 200, "GET", "/deliveries?endpoint="+endpoint+"&state=pending", "")
	acme.call(t, 200, "POST", "/endpoints/"+endpoint+"/filter/test", `{"filter":"data.n == 1"}`)
	acme.call(t, 200, "GET", "/endpoints/"+endpoint+"/health", "")
	return event, delivery
}

func callRedelivery(t *testing.T, acme caller, receiver *mendable, endpoint, event, delivery string) {
	receiver.set(false)
	acme.call(t, 202, "POST", "/deliveries/"+delivery+"/retry", "")
	attempts(t, acme, delivery, 2)
	acme.call(t, 409, "POST", "/deliveries/"+delivery+"/cancel", "")
	acme.call(t, 202, "POST", "/events/"+event+"/resend", `{}`)
	attempts(t, acme, delivery, 3)

	acme.call(t, 200, "PATCH", "/endpoints/"+endpoint, `{"status":"paused"}`)
	acme.call(t, 202, "POST", "/deliveries/"+delivery+"/retry", "")
	for i := range 6 {
		acme.call(t, 202, "POST", "/events", fmt.Sprintf(`{"id":"held-%d","type":"cases.closed","data":{"n":%d}}`, i, i))
	}
	held := acme.call(t, 200, "GET", "/deliveries?event=held-0", "")
	if held.text("data.0.state") != "held" {
		t.Errorf("what matches a paused endpoint: %s", held.body)
	}
	acme.call(t, 200, "POST", "/deliveries/"+held.text("data.0.id")+"/cancel", "")
	acme.call(t, 200, "POST", "/events/held-1/cancel", "")
	acme.call(t, 200, "POST", "/endpoints/"+endpoint+"/cancel-pending", `{"dry_run":true}`)
	acme.call(t, 200, "POST", "/endpoints/"+endpoint+"/cancel-pending", `{"states":["held"]}`)
	acme.call(t, 200, "PATCH", "/endpoints/"+endpoint, `{"status":"active"}`)
}

func callReplays(t *testing.T, acme caller, endpoint string) (replay string) {
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	at := "/endpoints/" + endpoint + "/replays"
	acme.call(t, 422, "POST", at, `{}`)
	acme.call(t, 200, "POST", at, `{"since":"`+since+`","states":["canceled"],"dry_run":true}`)
	slow := `{"since":"` + since + `","states":["canceled"],"rate_per_second":0.1}`
	replay = acme.call(t, 201, "POST", at, slow).text("data.id")
	acme.call(t, 409, "POST", at, slow)
	acme.call(t, 200, "POST", "/replays/"+replay+"/pause", "")
	acme.call(t, 200, "GET", "/replays?endpoint="+endpoint, "")
	acme.call(t, 200, "GET", "/replays/"+replay, "")
	acme.call(t, 200, "POST", "/replays/"+replay+"/resume", "")
	acme.call(t, 200, "POST", "/replays/"+replay+"/cancel", "")
	acme.call(t, 409, "POST", "/replays/"+replay+"/resume", "")
	return replay
}

func callTheRest(t *testing.T, acme caller, endpoint string) (export string) {
	at := "/endpoints/" + endpoint
	acme.call(t, 202, "POST", at+"/test", `{"type":"cases.updated"}`)
	acme.call(t, 200, "GET", at+"/stats?since="+url.QueryEscape(time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)), "")
	acme.call(t, 200, "GET", "/stats", "")
	acme.call(t, 200, "GET", "/audit", "")

	streamed := make(chan apiAnswer)
	go func() { // nothing of t ends the test from here: a stream without an event hangs
		defer close(streamed)
		streamed <- acme.call(t, 200, "GET", "/stream?types=cases.*", "")
	}()
	const exact = `{ "n" : 1152921504606846977, "s":"\/ä" }`
	n := 0
	eventually(t, "an event on the stream", func() bool {
		n++
		acme.call(t, 202, "POST", "/events", fmt.Sprintf(`{"id":"streamed-%d","type":"cases.archived","data":%s}`, n, exact))
		select {
		case got := <-streamed:
			if !strings.HasSuffix(got.body, `,"data":`+exact+`}`) {
				t.Errorf("the stream shows %s", got.body)
			}
			return true
		default:
			return false
		}
	})

	export = acme.call(t, 201, "POST", "/exports", `{}`).text("data.id")
	acme.call(t, 200, "GET", "/exports/"+export, "")
	if got := acme.call(t, 200, "GET", "/exports/"+export+"/content", ""); !strings.Contains(got.body, exact) {
		t.Errorf("the export lacks %s", exact)
	}
	return export
}

func callPlatform(t *testing.T, platform, acme caller) {
	platform.call(t, 200, "GET", "/audit", "")
	platform.call(t, 200, "POST", "/sending/pause", "")
	platform.call(t, 200, "POST", "/sending/resume", "")
	platform.call(t, 200, "POST", "/tenants/acme/suspend", "")
	acme.call(t, 403, "POST", "/events", `{"type":"cases.updated","data":{}}`)
	platform.call(t, 200, "POST", "/tenants/acme/resume", "")
	platform.call(t, 200, "GET", "/outbox", "")
	acme.call(t, 403, "GET", "/outbox", "")
}

// callOutbox retries and drops an event that was refused in the outbox, where there
// is one.
func callOutbox(t *testing.T, platform caller, path string) {
	platform.call(t, 404, "POST", "/outbox/42/retry", "")
	platform.call(t, 404, "DELETE", "/outbox/42", "")
	if !strings.Contains(path, "://") {
		return
	}
	db := must(pgx.Connect(t.Context(), path))(t)
	defer db.Close(t.Context())
	for range 2 {
		must(db.Exec(t.Context(), `SELECT posthorn.publish('acme', 'no.such.type', '{}')`))(t)
	}
	refused := func() string { return platform.call(t, 200, "GET", "/outbox", "").body }
	eventually(t, "two refused events", func() bool { return strings.Count(refused(), `"state":"refused"`) == 2 })
	platform.call(t, 202, "POST", "/outbox/"+apiAnswer{t, refused()}.text("data.0.id")+"/retry", "")
	eventually(t, "two refused events again", func() bool { return strings.Count(refused(), `"state":"refused"`) == 2 })
	platform.call(t, 204, "DELETE", "/outbox/"+apiAnswer{t, refused()}.text("data.0.id"), "")
}

// refuseAll wants 404 of each operation on what is not there for the caller: ids of
// an endpoint, event, delivery, replay and export.
func refuseAll(t *testing.T, c caller, ids []string) {
	t.Helper()
	since := time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)
	bodies := map[string]string{
		"PATCH /endpoints/{webhookId}": `{"description":"x"}`, "POST /endpoints/{webhookId}/replays": `{"since":"` + since + `"}`,
		"PATCH /endpoints/{webhookId}/settings": `{"timeout_seconds":5}`, "POST /endpoints/{webhookId}/filter/test": `{"filter":"true"}`,
		"POST /endpoints/{webhookId}/cancel-pending": `{}`, "POST /endpoints/{webhookId}/secret/rotate": `{}`,
	}
	fill := strings.NewReplacer("{webhookId}", ids[0], "{eventId}", ids[1], "{deliveryId}", ids[2], "{replayId}", ids[3], "{exportId}", ids[4])
	tried := 0
	for path, item := range c.doc["paths"].(map[string]any) {
		target := fill.Replace(path)
		if target == path {
			continue
		}
		for method := range item.(map[string]any) {
			method = strings.ToUpper(method)
			c.call(t, 404, method, target, bodies[method+" "+path])
			tried++
		}
	}
	if tried < 25 {
		t.Errorf("only %d operations name something", tried)
	}
}
