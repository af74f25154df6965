package bench

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/webhook"
)

// raw is the first yardstick: a bare loop of signed requests of net/http's client
// straight to the receiver, on as many connections as the load has.
func raw(ctx context.Context, c Config) (Yardstick, error) {
	c = c.plain()
	c.Rate = 0
	r, err := newReceiver(c)
	if err != nil {
		return Yardstick{}, err
	}
	defer r.Close()
	l := newLedger(c, c.events())
	r.ledger.Store(l)
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: c.Conns, MaxIdleConnsPerHost: c.Conns}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	done := watch(c, "yardstick: raw, signed requests without a service", l)
	defer done()
	var wg sync.WaitGroup
	for range c.Conns {
		wg.Go(func() {
			if err := rawLoop(ctx, client, r.url(0), l); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	l.lastSent = l.now()
	report := l.report()
	return Yardstick{PerSecond: report.DeliveredPerSecond, Receipt: report.Receipt}, context.Cause(ctx)
}

func rawLoop(ctx context.Context, client *http.Client, url string, l *ledger) error {
	key := make([]byte, 32)
	ref := string(bytes.Repeat([]byte("0"), posthorn.GeneratedRefLength))
	body := posthorn.AppendBody(nil, ref, eventType(0), time.Now(), []byte(data(l.c.BodySize)))
	number := body[bytes.Index(body, []byte(numberKey))+len(numberKey):][:numberWidth]
	for ctx.Err() == nil {
		n := int(l.next.Add(1)) - 1
		if n >= len(l.due) || l.now() >= int64(l.c.Duration) {
			return nil
		}
		l.due[n] = l.now()
		digits(number, n)
		if err := signAndPost(ctx, client, url, body, ref, key); err != nil {
			return err
		}
		l.accepted[n] = l.now()
	}
	return nil
}

// signAndPost is all that a webhook needs.
func signAndPost(ctx context.Context, client *http.Client, url string, body []byte, id string, key []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	now := time.Now()
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", fmt.Sprint(now.Unix()))
	req.Header.Set("Webhook-Signature", string(webhook.Sign(make([]byte, 0, 4+base64.StdEncoding.EncodedLen(32)), id, now, body, key)))
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("the receiver answered %s", resp.Status)
	}
	return nil
}
