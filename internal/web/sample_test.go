package web

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/posthorn/posthorn/internal/proof"
)

// TestRefusedRequestsAreSampled has thousands refused within a second. Those of a
// caller who is known keep their lines, but for those beyond its share.
func TestRefusedRequestsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log proof.Output
		h := Wrap(slog.New(slog.NewTextHandler(&log, nil)), time.Now, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				Known(r.Context())
			}
			status, _ := strconv.Atoi(r.URL.Query().Get("status"))
			w.WriteHeader(status)
		}))
		send := func(n, status int, token string) {
			for range n {
				r := httptest.NewRequest("GET", "/?status="+strconv.Itoa(status), nil)
				if token != "" {
					r.Header.Set("Authorization", token)
				}
				h.ServeHTTP(httptest.NewRecorder(), r)
			}
		}
		want := func(when, text string, n int) {
			t.Helper()
			synctest.Wait()
			if got := strings.Count(log.String(), text); got != n {
				t.Errorf("%s: %d lines with %q, want %d", when, got, text, n)
			}
		}
		for range 2 {
			log.Reset()
			send(3000, 401, "")
			send(20, 429, "t")
			send(20, 404, "t")
			send(20, 503, "")
			send(20, 200, "")
			want("at once", "msg=request ", 10+10+20+20+20)
			want("at once", "refused", 0)
			<-time.After(sampleFor)
			want("a second later", `msg="more requests were refused" status=401 requests=2990`, 1)
			want("a second later", `msg="more requests were refused" status=429 requests=10`, 1)
			want("a second later", "refused", 2)
		}
		log.Reset()
		send(10, 401, "")
		<-time.After(sampleFor)
		want("no more than have a line", "refused", 0)
	})
}
