package crash

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
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
	rate   float64
	prefix string // of the event ids

	next     atomic.Int64
	answered atomic.Int64 // 202s
	refused  atomic.Int64 // 503s, each with Retry-After
	broken   atomic.Int64 // requests that a kill or a refusal cut off

	stop chan struct{}
	wg   sync.WaitGroup
	errs chan error // answers that are wrong whatever happens to the server
}

const connections = 64

// startLoad begins to publish; ctx bounds all of it.
func startLoad(ctx context.Context, api proof.API, l *ledger, rate float64, prefix string) *load {
	api.HTTP = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{MaxIdleConnsPerHost: connections}}
	p := &load{api: api, ledger: l, rate: rate, prefix: prefix, stop: make(chan struct{}), errs: make(chan error, connections)}
	start := time.Now()
	for range connections {
		p.wg.Go(func() {
			if err := p.work(ctx, start); err != nil {
				p.errs <- err
			}
		})
	}
	return p
}

// finish lets the requests under way succeed and returns what was wrong.
func (p *load) finish() error {
	close(p.stop)
	p.wg.Wait()
	select {
	case err := <-p.errs:
		return err
	default:
		return nil
	}
}

func (p *load) work(ctx context.Context, start time.Time) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		n := p.next.Add(1) - 1
		timer.Reset(time.Until(start.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))))
		select {
		case <-timer.C:
		case <-p.stop:
			return nil
		}
		if err := p.publish(ctx, int(n)); err != nil {
			return err
		}
	}
}

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
