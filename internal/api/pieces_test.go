package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/share"
	"github.com/posthorn/posthorn/internal/tally"
)

// stalled is a reader that takes nothing until it is let, and goes away then.
type stalled struct {
	httptest.ResponseRecorder
	parked chan<- struct{}
	let    <-chan struct{}
	once   sync.Once
}

var errGone = errors.New("the reader is gone")

func (w *stalled) Write(b []byte) (int, error) {
	w.once.Do(func() { w.parked <- struct{}{} })
	<-w.let
	return 0, errGone
}

// bare is a server without operations, for a tenant's request.
func bare(w *world, tenant int64) (*server, *request) {
	s := &server{Config: w.config, answers: share.NewPool(answersInAll, answersOfTenant)}
	return s, &request{Request: httptest.NewRequest("GET", Base+"/deliveries", nil), query: &query{}, party: share.Tenant(tenant)}
}

// A page ends where its answer has 4 MiB, and goes on from there.
func TestAPageEndsAtFourMiB(t *testing.T) {
	s, q := bare(newWorld(t), 1)
	const each, all = 100 << 10, 100
	next, pages := all, 0
	for next > 0 {
		pages++
		rows := make([]int, next)
		for i := range rows {
			rows[i] = next - i
		}
		rep, err := pageReply(s, q, rows, func(n *int) string { return strings.Repeat("x", each-8) + fmt.Sprintf("%8d", *n) }, func(n *int) int64 { return int64(*n) }, 0)
		if err != nil {
			t.Fatal(err)
		}
		rec := httptest.NewRecorder()
		if err := s.writePieces(rec, q, rep); err != nil {
			t.Fatal(err)
		}
		var page list[string]
		if err := json.Unmarshal(rec.Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		if n := rec.Body.Len(); n > pageBytes+2*each || page.NextCursor != nil && n < pageBytes {
			t.Errorf("a page of %d bytes", n)
		}
		var last int
		fmt.Sscan(strings.TrimLeft(page.Data[len(page.Data)-1], "x"), &last)
		if last != next-len(page.Data)+1 || (page.NextCursor == nil) != (last == 1) {
			t.Fatalf("a page of %d from %d ends at %d", len(page.Data), next, last)
		}
		next = last - 1
	}
	if pages != 3 {
		t.Errorf("%d pages of %d MiB", pages, all*each>>20)
	}
	if n, _ := s.answers.Taken(); n != 0 {
		t.Errorf("%d bytes were not given back", n)
	}
}

// An answer that cannot be encoded is a problem while it is small, and cut off once
// a part of it is sent.
func TestABrokenAnswerIsNotTakenForAWhole(t *testing.T) {
	s, q := bare(newWorld(t), 1)
	broken := func(rows int) *reply {
		rep, _ := pageReply(s, q, make([]int, rows), func(*int) any { return strings.Repeat("x", 1000) }, nil, 0)
		inner := rep.pieces
		rep.pieces = func(p *pieces) error {
			if err := inner(p); err != nil {
				return err
			}
			return p.value(func() {})
		}
		return rep
	}
	rec := httptest.NewRecorder()
	if err := s.writePieces(rec, q, broken(1)); err == nil || rec.Body.Len() > 0 {
		t.Errorf("a small one: %v after %d bytes", err, rec.Body.Len())
	}
	defer func() {
		if v := recover(); v != http.ErrAbortHandler {
			t.Errorf("a large one ended with %v", v)
		}
		if n, _ := s.answers.Taken(); n != 0 {
			t.Errorf("%d bytes were not given back", n)
		}
	}()
	t.Error(s.writePieces(httptest.NewRecorder(), q, broken(1000)))
}

// Whoever asks for large answers and reads none holds a tenant's share of memory,
// and is alone in being refused.
func TestAnswersThatNobodyReadsTakeABoundedShare(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CheckURL = func(string) error { return nil } })
	const endpoints, readers = 90, 60
	body := func(i int) string {
		return fmt.Sprintf(`{"url":"https://partner.example.com/%s/%d","events":["cases.*"],"description":"%s"}`, strings.Repeat("u", 1990), i, strings.Repeat("😀", 1024))
	}
	create := func(who string, n int) {
		var wg sync.WaitGroup
		for part := range 15 {
			wg.Go(func() {
				for i := range n / 15 {
					w.do(who, "POST", "/endpoints", body(part*n+i)).want(201)
				}
			})
		}
		wg.Wait()
	}
	create("acme", endpoints)
	create("other", 15)
	size := len(w.do("acme", "GET", "/endpoints", "").want(200).body)
	parked, let := make(chan struct{}, readers), make(chan struct{})
	refused := make(chan *stalled, readers)
	before := memory()
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			defer func() { _ = recover() }() // an answer that is cut off
			rec := &stalled{parked: parked, let: let}
			rec.HeaderMap = http.Header{}
			c := w.as("acme", "GET", "/endpoints", "")
			w.handler.ServeHTTP(&sized{rec, refused}, c.request)
		})
	}
	stuck := 0
	for range readers {
		select {
		case <-parked:
			stuck++
		case rec := <-refused:
			if rec.Code != http.StatusTooManyRequests || rec.HeaderMap.Get("Retry-After") == "" {
				t.Errorf("one more is answered %d", rec.Code)
			}
		}
	}
	if held := stuck * size; stuck < 2 || held > answersOfTenant+answersOfTenant/4 {
		t.Errorf("%d readers are stuck in answers of %d bytes", stuck, size)
	}
	if grown := memory() - before; grown > 2*answersOfTenant {
		t.Errorf("%d readers who read nothing hold %d MiB", readers, grown>>20)
	}
	if got := w.do("other", "GET", "/endpoints", "").want(200); len(got.body) <= smallAnswer {
		t.Errorf("another tenant's answer has %d bytes: not large", len(got.body))
	}
	w.do("acme", "GET", "/endpoints?limit=1", "").want(200)
	close(let)
	wg.Wait()
	w.do("acme", "GET", "/endpoints", "").want(200)
	tally.Count(t, "answers that nobody reads hold a tenant's share of memory", readers)
}

// sized lets problems, which are small, through to whom it tells.
type sized struct {
	*stalled
	refused chan<- *stalled
}

func (w *sized) WriteHeader(status int) {
	w.stalled.WriteHeader(status)
}

func (w *sized) Write(b []byte) (int, error) {
	if w.Code >= 400 {
		w.refused <- w.stalled
		return len(b), nil
	}
	return w.stalled.Write(b)
}

func memory() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Lists show the beginning of what a receiver answered, and say that there is more.
func TestListsShowTheBeginningOfAnswers(t *testing.T) {
	w := newWorld(t)
	w.endpoint("acme", validEndpoint)
	event := w.event("acme", "cases.updated")
	id := w.do("acme", "GET", "/deliveries", "").want(200).text("data.0.id")
	a := anAttempt()
	a.Snippet, a.BodyNote = []byte(strings.Repeat("x", posthorn.MaxSnippet)), ""
	w.record(w.delivery(id), a)
	whole := w.do("acme", "GET", "/deliveries/"+id, "").want(200)
	if got := whole.text("data.attempts.0.response_body"); len(got) != posthorn.MaxSnippet || whole.value("data.attempts.0.response_body_note") != nil {
		t.Errorf("%d bytes of %d are shown", len(got), posthorn.MaxSnippet)
	}
	for path, at := range map[string]string{"/deliveries": "data.0", "/events/" + event: "data.delivery_log.0"} {
		got := w.do("acme", "GET", path, "").want(200)
		if n := len(got.text(at + ".attempts.0.response_body")); n != listSnippet || got.text(at+".attempts.0.response_body_note") != "truncated" {
			t.Errorf("%s shows %d bytes of an answer: %.300s", path, n, got.body)
		}
	}
}

// A whole list is read as it is written, and is what its pages are.
func TestAWholeListOfEndpointsIsItsPages(t *testing.T) {
	w := newWorld(t, func(c *Config) { c.CheckURL = func(string) error { return nil } })
	for _, n := range []int{0, 1, endpointsAtOnce - 1, endpointsAtOnce, endpointsAtOnce + 1, 2 * endpointsAtOnce, 2*endpointsAtOnce + 50} {
		for i := len(w.endpointIDs(t, "/endpoints")); i < n; i++ {
			w.do("acme", "POST", "/endpoints", fmt.Sprintf(`{"url":"https://partner.example.com/%d","events":["cases.*"]}`, i)).want(201)
		}
		whole, paged := w.endpointIDs(t, "/endpoints"), []string(nil)
		for next := "/endpoints?limit=70"; next != ""; {
			paged = append(paged, w.endpointIDs(t, next)...)
			_, next, _ = strings.Cut(w.do("acme", "GET", next, "").want(200).header.Get("Link"), "<"+Base)
			next, _, _ = strings.Cut(next, ">")
		}
		if len(whole) != n || !slices.Equal(whole, paged) {
			t.Errorf("of %d endpoints the whole list has %d, the pages %d", n, len(whole), len(paged))
		}
	}
}

// TestWholeListsAreReadByTurns: whoever reads all endpoints, many at a time, waits for its
// own reads, and no other tenant does.
func TestWholeListsAreReadByTurns(t *testing.T) {
	w := newWorld(t)
	over, read := make(chan struct{}), make(chan struct{})
	var reading sync.WaitGroup
	reading.Go(func() {
		if err := w.store.Walks().Slice(t.Context(), w.tenant("acme").ID, func(context.Context) error {
			close(read)
			<-over
			return nil
		}); err != nil {
			t.Error(err)
		}
	})
	<-read
	answered := make(chan int, 8)
	for range cap(answered) {
		reading.Go(func() { answered <- w.do("acme", "GET", "/endpoints", "").status })
	}
	w.do("other", "GET", "/endpoints", "").want(200)
	w.do("acme", "GET", "/endpoints?limit=10", "").want(200)
	select {
	case <-answered:
		t.Error("the tenant reads all of its endpoints beside another long read")
	case <-time.After(100 * time.Millisecond):
	}
	close(over)
	reading.Wait()
	for range cap(answered) {
		if status := <-answered; status != 200 {
			t.Errorf("answered %d", status)
		}
	}
}

func (w *world) endpointIDs(t *testing.T, path string) (ids []string) {
	t.Helper()
	var list struct {
		Data []struct {
			ID string `json:"id"`
		} `json:"data"`
	}
	if err := json.Unmarshal([]byte(w.do("acme", "GET", path, "").want(200).body), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list.Data {
		ids = append(ids, e.ID)
	}
	return ids
}
