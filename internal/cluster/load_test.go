package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// load publishes at a steady rate through all nodes in turn. Every event has an
// id of ours and is sent again, to the next node, until one answers 202: several
// may have stored it, and it must be published once.
type load struct {
	w       *world
	pace    *proof.Pace
	refused atomic.Int64 // 503s
	broken  atomic.Int64 // requests that no answer came to
}

const publishers = 24

func (w *world) startLoad(ctx context.Context, rate float64) *load {
	p := &load{w: w}
	p.pace = proof.Steady(rate, publishers, func(n int) error { return p.publish(ctx, n) })
	return p
}

// finish lets the requests under way succeed and returns what was wrong.
func (p *load) finish() error { return p.pace.Finish() }

func (p *load) publish(ctx context.Context, n int) error {
	w := p.w
	id := fmt.Sprintf("c-%x-%d", w.seed, n)
	e := &event{tenant: n % tenants, n: n, began: time.Now(), inLine: n/tenants%64 == 0}
	e.data = fmt.Sprintf(`{"n":%d,  "of":"%s","note":"%s"}`, n, tenantName(e.tenant), strings.Repeat("ä", 100))
	kind := "cases.updated"
	if e.inLine {
		kind = "assignments.updated"
	}
	body := fmt.Appendf(nil, `{"id":"%s","type":"%s","data":%s}`, id, kind, e.data)
	w.ledger.add(id, e)
	var answer struct {
		Deliveries int `json:"deliveries"`
	}
	node := n / tenants % len(w.nodes)
	return proof.Until(ctx, 20*time.Millisecond, func() (bool, error) {
		w.ledger.through(id, node)
		began := time.Now()
		err := w.api(node, e.tenant).Call(ctx, http.MethodPost, "/events", body, &answer)
		if err == nil {
			w.ledger.accept(id, answer.Deliveries)
			return true, nil
		}
		if s, ok := err.(*proof.Status); ok {
			// The former version answers so when a connection was closed under it.
			former := node == w.former && s.Code == http.StatusInternalServerError && w.ledger.disturbed(node, began)
			if !former && (s.Code != http.StatusServiceUnavailable || s.RetryAfter == "") {
				return false, fmt.Errorf("node %d: %w (Retry-After: %q)", node, err, s.RetryAfter)
			}
			p.refused.Add(1)
		} else {
			p.broken.Add(1)
		}
		// A slow answer is no fault: a node that hangs in a transaction keeps others
		// waiting for its locks, and machines are slow.
		late, ok := errors.AsType[net.Error](err)
		if slow := ok && late.Timeout(); !slow && !w.ledger.disturbed(node, began) && ctx.Err() == nil {
			return false, fmt.Errorf("node %d, to which nothing was done: %w", node, err)
		}
		node = (node + 1) % len(w.nodes)
		return false, ctx.Err()
	})
}
