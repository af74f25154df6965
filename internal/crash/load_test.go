package crash

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/proof"
)

// load publishes at a steady rate over kept connections. Every event has an id
// of ours and is sent again until it is answered 202, so that an answer that a
// kill swallowed makes no second event.
type load struct {
	api    proof.API
	ledger *ledger
	prefix string // of the event ids

	pace     *proof.Pace
	answered atomic.Int64 // 202s
	refused  atomic.Int64 // 503s, each with Retry-After
	broken   atomic.Int64 // requests that a kill or a refusal cut off
}

const connections = 64

// startLoad begins to publish; ctx bounds all of it.
func startLoad(ctx context.Context, api proof.API, l *ledger, rate float64, prefix string) *load {
	api.HTTP = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	p := &load{api: api, ledger: l, prefix: prefix}
	p.pace = proof.Steady(rate, connections, func(n int) error { return p.publish(ctx, n) })
	return p
}

// finish lets the requests under way succeed and returns what was wrong: answers that are
// so whatever happens to the server.
func (p *load) finish() error { return p.pace.Finish() }

func (p *load) publish(ctx context.Context, n int) error {
	id := fmt.Sprintf("%s-%d", p.prefix, n)
	e := &event{kind: mix[n%len(mix)], data: fmt.Sprintf(`{"case_id": 590,  "client_id":77,"n":%d,"note":"%s"}`, n, strings.Repeat("ä", 200))}
	body := fmt.Sprintf(`{"id":"%s","type":"%s","data":%s`, id, e.kind, e.data)
	if n%16 == 3 {
		e.deliverAt = time.Now().Add(time.Duration(1000+n/16%8*250) * time.Millisecond).Truncate(time.Millisecond)
		body += fmt.Sprintf(`,"deliver_at":"%s"`, posthorn.FormatTime(e.deliverAt))
	}
	body += "}"
	p.ledger.add(id, e)
	var answer struct {
		Deliveries int `json:"deliveries"`
	}
	return proof.Until(ctx, 50*time.Millisecond, func() (bool, error) {
		err := p.api.Call(ctx, http.MethodPost, "/events", []byte(body), &answer)
		if err == nil {
			p.answered.Add(1)
			p.ledger.accepted(id, answer.Deliveries)
			return true, nil
		}
		// 503 is the one refusal that a healthy publisher may meet: it asks again.
		if s, ok := err.(*proof.Status); ok {
			if s.Code != http.StatusServiceUnavailable || s.RetryAfter == "" {
				return false, fmt.Errorf("%w (Retry-After: %q)", err, s.RetryAfter)
			}
			p.refused.Add(1)
		}
		p.broken.Add(1)
		return false, ctx.Err()
	})
}
