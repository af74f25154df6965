package cluster

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// TestARetryThatOnlyADeadNodeKnewIsMade: a node dies between two attempts of a
// delivery. The other one, which has nothing to do for an hour and looked at
// nothing earlier, makes the second one all the same.
func TestARetryThatOnlyADeadNodeKnewIsMade(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeoutCause(t.Context(), 3*time.Minute, fmt.Errorf("the retry was not made within three minutes"))
	defer cancel()
	w := newWorld(ctx, t, pgtest.ThrowAway(t), 2)
	later := fmt.Appendf(nil, `{"type":"cases.closed","data":{},"deliver_at":%q}`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
	if err := w.patient(1, 0).Call(ctx, http.MethodPost, "/events", later, nil); err != nil {
		t.Fatal(err)
	}
	w.pass(time.Second) // it has looked
	const id = "retried"
	w.ledger.add(id, &event{tenant: 0, data: `{"n":1}`})
	w.ledger.accept(id, int(targets))
	w.refusals.Store(9) // the next request to a flaky receiver is refused
	if err := w.patient(0, 0).Call(ctx, http.MethodPost, "/events", []byte(`{"id":"retried","type":"cases.updated","data":{"n":1}}`), nil); err != nil {
		t.Fatal(err)
	}
	err := proof.Until(ctx, time.Millisecond, func() (bool, error) {
		var due []struct {
			Made int `json:"attempts_made"`
		}
		err := w.patient(1, 0).Call(ctx, http.MethodGet, "/deliveries?state=pending&event="+id, nil, &due)
		return len(due) == 1 && due[0].Made == 1, err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.kill(0)
	began := time.Now()
	if err := proof.Until(ctx, 20*time.Millisecond, func() (bool, error) { return w.ledger.missing() == 0, nil }); err != nil {
		t.Errorf("%v", err)
		w.explain()
	}
	t.Logf("made %s after the node's death", time.Since(began))
}
