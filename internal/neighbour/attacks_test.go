package neighbour

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json"

	_ "modernc.org/sqlite" // another program that reads the file

	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/proof"
)

// attack is how hostile tenants take ten times their share of something.
type attack struct {
	name string
	// flags are the server's.
	flags []string
	// tenants and tokens (of each) the attackers have; 0 for one.
	tenants, tokens int
	// lead is how long the attack takes to show in full, in the long form; 0 for three
	// seconds.
	lead time.Duration
	// prepare returns what begins the attack and returns; ctx ends it. Both are called
	// in the attackers' process.
	prepare func(ctx context.Context, h *hostile) (func(context.Context), error)
}

// attacks are all that are tried. Their figures are of the long form; see
// [hostile.scaled].
var attacks = []attack{
	{name: "slow", lead: 40 * time.Second, prepare: slow},
	{name: "fanout", prepare: fanOut},
	{name: "filters", prepare: dearFilters},
	{name: "filter-test", prepare: filterTests},
	{name: "drip", flags: []string{"--max-connections", "200"}, prepare: drip},
	{name: "bodies", tokens: 5, prepare: announced},
	{name: "streams", tenants: 20, prepare: streams},
	{name: "exports", prepare: exports},
	{name: "counts", prepare: counts},
	{name: "unread", prepare: unread},
	{name: "tokens", prepare: unknownTokens},
	{name: "snapshot", prepare: snapshot},
}

// event is an event's body.
const event = `{"type":"assignments.updated","data":{"n":1}}`

// listen starts a receiver in the attackers' process.
func listen(answer http.HandlerFunc) string {
	return httptest.NewServer(answer).URL // it ends with the process
}

// endpoints registers n endpoints of a tenant, with paths of their own.
func (h *hostile) endpoints(ctx context.Context, tenant, n int, at string, events ...string) ([]proof.Endpoint, error) {
	var (
		wg   sync.WaitGroup
		made = make([]proof.Endpoint, n)
		errs = make([]error, n)
	)
	places := make(chan struct{}, 8)
	for i := range n {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			made[i], errs[i] = h.api(tenant, i).CreateEndpoint(ctx, fmt.Sprintf("%s/%d", at, i), "active", events...)
		})
	}
	wg.Wait()
	return made, errors.Join(errs...)
}

// publish publishes until ctx ends.
func (h *hostile) publish(ctx context.Context, perSecond float64, many int) {
	go h.every(ctx, perSecond, many, func(i int) {
		h.answered(h.api(i, i).Call(ctx, http.MethodPost, "/events", []byte(event), nil))
	})
}

// slow: 400 endpoints that answer 200 shortly before their time-out.
func slow(ctx context.Context, h *hostile) (func(context.Context), error) {
	at := listen(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		select {
		case <-time.After(12 * time.Second):
		case <-r.Context().Done():
		}
	})
	if _, err := h.endpoints(ctx, 0, h.scaled(400), at, "assignments.*"); err != nil {
		return nil, err
	}
	return func(ctx context.Context) { h.publish(ctx, 10, 8) }, nil
}

// fanOut: a thousand endpoints at one host, so that a few publishes become thousands
// of requests a second.
func fanOut(ctx context.Context, h *hostile) (func(context.Context), error) {
	at := listen(func(http.ResponseWriter, *http.Request) { h.count("requests") })
	if _, err := h.endpoints(ctx, 0, h.scaled(1000), at, "assignments.*"); err != nil {
		return nil, err
	}
	return func(ctx context.Context) { h.publish(ctx, 20, 8) }, nil
}

// dear is a filter just inside its budget.
const dear = `data.a.all(x, data.a.exists(y, y > x || y == 0))`

// much is data that keeps it busy.
func much() string {
	return `{"a":[` + strings.Repeat("1,", 100) + `0]}`
}

// dearFilters: a thousand of them under 64 publishers.
func dearFilters(ctx context.Context, h *hostile) (func(context.Context), error) {
	at := listen(func(http.ResponseWriter, *http.Request) {})
	made, err := h.endpoints(ctx, 0, h.scaled(1000), at, "assignments.*")
	if err != nil {
		return nil, err
	}
	for i, e := range made {
		body, err := json.Marshal(map[string]string{"filter": dear + fmt.Sprintf(" && data.a.size() > %d", 1000+i)})
		if err != nil {
			return nil, err
		}
		if err := h.api(0, 0).Call(ctx, http.MethodPatch, "/endpoints/"+e.ID+"/settings", body, nil); err != nil {
			return nil, err
		}
	}
	body := []byte(`{"type":"assignments.updated","data":` + much() + `}`)
	return func(ctx context.Context) {
		go h.every(ctx, 640, 64, func(i int) {
			h.answered(h.api(0, i).Call(ctx, http.MethodPost, "/events", body, nil))
		})
	}, nil
}

// filterTests: dear filters tried on recent events, 64 at a time.
func filterTests(ctx context.Context, h *hostile) (func(context.Context), error) {
	made, err := h.endpoints(ctx, 0, 1, listen(func(http.ResponseWriter, *http.Request) {}), "assignments.*")
	if err != nil {
		return nil, err
	}
	body := []byte(`{"type":"assignments.updated","data":` + much() + `}`)
	for range h.scaled(500) {
		if err := h.api(0, 0).Call(ctx, http.MethodPost, "/events", body, nil); err != nil {
			return nil, err
		}
	}
	ask, err := json.Marshal(map[string]string{"filter": dear})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		go h.every(ctx, 640, 64, func(i int) {
			h.answered(h.api(0, i).Call(ctx, http.MethodPost, "/endpoints/"+made[0].ID+"/filter/test", ask, nil))
		})
	}, nil
}

// dial connects to the service.
func (h *hostile) dial(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(h.URL)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, "tcp", u.Host)
}

// head is the head of a POST of so many bytes.
func (h *hostile) head(route string, token int, length int) string {
	api := h.api(token, token)
	return fmt.Sprintf("POST %s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		proof.Base, route, strings.TrimPrefix(h.URL, "http://"), api.Token, length)
}

// dripping keeps a connection whose request's body never ends, and makes another one
// when it is closed.
func (h *hostile) dripping(ctx context.Context, route string, token, length int) {
	for ctx.Err() == nil {
		c, err := h.dial(ctx)
		if err != nil {
			h.count("not connected")
			return
		}
		h.count("connections")
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		gone := make(chan struct{})
		go func() { // whatever is answered ends it
			_, _ = c.Read(make([]byte, 1))
			close(gone)
		}()
		_, err = io.WriteString(c, h.head(route, token, length))
		tick := time.NewTicker(500 * time.Millisecond)
		for err == nil {
			select {
			case <-gone:
				err = io.EOF
			case <-tick.C:
				_, err = c.Write([]byte{' '})
			}
		}
		tick.Stop()
		stop()
		_ = c.Close()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// drip: more connections than the server takes, each in the middle of a body.
func drip(_ context.Context, h *hostile) (func(context.Context), error) {
	return func(ctx context.Context) {
		for i := range h.scaled(400) * 10 / h.scaled(10) { // 400 in either form: it is the server's limit that counts
			go h.dripping(ctx, "/events", i, 200_000)
		}
	}, nil
}

// announced: large batches that hardly come, by five tokens of one tenant.
func announced(_ context.Context, h *hostile) (func(context.Context), error) {
	return func(ctx context.Context) {
		for i := range 60 {
			go h.dripping(ctx, "/events/batch", i, 8<<20)
		}
	}, nil
}

// read reads an answer of any type to its end.
func (h *hostile) read(ctx context.Context, api proof.API, route string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, api.URL+proof.Base+route, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+api.Token)
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &proof.Status{Method: http.MethodGet, Path: route, Code: resp.StatusCode}
	}
	h.count("begun")
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// streams: twenty tenants with fifty streams each.
func streams(_ context.Context, h *hostile) (func(context.Context), error) {
	return func(ctx context.Context) {
		for i := range h.scaled(1000) {
			go func() {
				for ctx.Err() == nil {
					h.answered(h.read(ctx, h.api(i, i), "/stream"))
					select {
					case <-ctx.Done():
					case <-time.After(time.Second):
					}
				}
			}()
		}
		h.publish(ctx, 20, 4)
	}, nil
}

// history publishes n events in batches.
func (h *hostile) history(ctx context.Context, n int) error {
	const each = 1000
	one := `{"type":"assignments.updated","data":{"text":"` + strings.Repeat("x", 200) + `"}}`
	body := []byte(`{"events":[` + strings.TrimSuffix(strings.Repeat(one+",", each), ",") + `]}`)
	for range max(1, n/each) {
		if err := h.api(0, 0).Call(ctx, http.MethodPost, "/events/batch", body, nil); err != nil {
			return err
		}
	}
	return nil
}

// exports: 64 at a time of a tenant with much to export, half of them not read.
func exports(ctx context.Context, h *hostile) (func(context.Context), error) {
	if err := h.history(ctx, h.scaled(100_000)); err != nil {
		return nil, err
	}
	var made struct {
		ID string `json:"id"`
	}
	if err := h.api(0, 0).Call(ctx, http.MethodPost, "/exports", []byte(`{}`), &made); err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		for i := range 32 {
			go h.unread(ctx, "/exports/"+made.ID+"/content", i)
		}
		go h.every(ctx, 64, 32, func(i int) {
			h.answered(h.read(ctx, h.api(0, i), "/exports/"+made.ID+"/content"))
		})
	}, nil
}

// counts: dry runs that look at all events, sixteen at a time.
func counts(ctx context.Context, h *hostile) (func(context.Context), error) {
	if err := h.history(ctx, h.scaled(400_000)); err != nil {
		return nil, err
	}
	made, err := h.endpoints(ctx, 0, 16, listen(func(http.ResponseWriter, *http.Request) {}), "assignments.*")
	if err != nil {
		return nil, err
	}
	body := []byte(`{"since":"2020-01-01T00:00:00Z","missing":true,"dry_run":true}`)
	return func(ctx context.Context) {
		go h.every(ctx, 50, 16, func(i int) {
			h.answered(h.api(0, i).Call(ctx, http.MethodPost, "/endpoints/"+made[i%len(made)].ID+"/replays", body, nil))
		})
	}, nil
}

// unread asks and reads nothing of the answer.
func (h *hostile) unread(ctx context.Context, route string, token int) {
	api := h.api(0, token)
	for ctx.Err() == nil {
		c, err := h.dial(ctx)
		if err != nil {
			h.count("not connected")
			return
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetReadBuffer(4096)
		}
		h.count("asked")
		_, err = fmt.Fprintf(c, "GET %s%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\n\r\n", proof.Base, route, strings.TrimPrefix(h.URL, "http://"), api.Token)
		if err == nil {
			select {
			case <-ctx.Done():
			case <-time.After(5 * time.Second):
			}
		}
		_ = c.Close()
	}
}

// unread: 60 readers of all endpoints, ten megabytes, that read nothing.
func unread(ctx context.Context, h *hostile) (func(context.Context), error) {
	at := "https://receiver.example/" + strings.Repeat("p", 1900)
	body := func(i int) []byte {
		b, _ := json.Marshal(map[string]any{"url": fmt.Sprintf("%s/%d", at, i), "events": []string{"assignments.*"}, "description": strings.Repeat("\u2028", 1000)})
		return b
	}
	for i := range h.scaled(1000) {
		if err := h.api(0, 0).Call(ctx, http.MethodPost, "/endpoints", body(i), nil); err != nil {
			return nil, err
		}
	}
	return func(ctx context.Context) {
		for i := range 60 {
			go h.unread(ctx, "/endpoints", i)
		}
	}, nil
}

// unknownTokens: well-formed tokens that nobody has, two thousand a second.
func unknownTokens(_ context.Context, h *hostile) (func(context.Context), error) {
	return func(ctx context.Context) {
		go h.every(ctx, 2000, 64, func(int) {
			text, _ := access.NewToken()
			h.answered(proof.API{URL: h.URL, Token: text, HTTP: client}.Call(ctx, http.MethodGet, "/endpoints", nil, nil))
		})
	}, nil
}

// snapshot: a reader that keeps a snapshot of the file, as a backup does, while
// payloads are erased.
func snapshot(ctx context.Context, h *hostile) (func(context.Context), error) {
	db, err := sql.Open("sqlite", "file:"+h.File+"?mode=ro")
	if err != nil {
		return nil, err
	}
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	var n int
	if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_schema`).Scan(&n); err != nil {
		return nil, err
	}
	return func(ctx context.Context) {
		go h.every(ctx, 10, 8, func(int) {
			var made struct {
				ID string `json:"id"`
			}
			err := h.api(0, 0).Call(ctx, http.MethodPost, "/events", []byte(event), &made)
			if err == nil {
				err = h.api(0, 0).Call(ctx, http.MethodDelete, "/events/"+made.ID+"/payload", nil, nil)
			}
			h.answered(err)
		})
	}, nil
}
