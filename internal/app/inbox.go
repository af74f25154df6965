package app

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/posthorn/posthorn/internal/terminal"
	"github.com/posthorn/posthorn/internal/web"
	"github.com/posthorn/posthorn/webhook"
)

// inbox is dev's receiver: a real HTTP server that does what a partner's should.
// It reads the raw body, verifies the signature, remembers ids it has seen, and
// answers 204. It prints one line per request. On request it fails for a while,
// so that retries can be watched.
type inbox struct {
	out io.Writer
	now func() time.Time

	mu        sync.Mutex
	verifier  *webhook.Verifier
	seen      map[string]int // requests per webhook-id
	failUntil time.Time
	failWith  int
	verified  int

	server   *http.Server
	listener net.Listener
}

// maxSeen bounds what the inbox remembers; older ids are forgotten all at once.
const maxSeen = 10_000

func newInbox(out io.Writer, now func() time.Time) *inbox {
	in := &inbox{out: out, now: now, seen: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /inbox", in.receive)
	mux.HandleFunc("POST /fail", in.fail)
	// It is called by programs of this machine: no page of another site has it fail, or
	// reads what it answers.
	guarded := web.NewHosts().Guard(slog.New(slog.DiscardHandler), now, web.Always, http.NewCrossOriginProtection().Handler(mux))
	in.server = &http.Server{Handler: guarded, ReadHeaderTimeout: 10 * time.Second}
	return in
}

// listen opens the inbox on addr, or on a free port of the same host when addr
// is taken.
func (in *inbox) listen(addr string) (err error) {
	in.listener, _, err = listenOrFree(addr)
	return err
}

func (in *inbox) addr() string { return in.listener.Addr().String() }

func (in *inbox) serve() error {
	if err := in.server.Serve(in.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the inbox stopped: %w", err)
	}
	return nil
}

func (in *inbox) shutdown(ctx context.Context) error { return in.server.Shutdown(ctx) }

// trust sets the endpoint's secret that signatures are verified with.
func (in *inbox) trust(secret string) error {
	v, err := webhook.NewVerifier(secret)
	if err != nil {
		return err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.verifier = v
	return nil
}

func (in *inbox) receive(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	status, verdict := in.judge(r.Header, body)
	fmt.Fprintf(in.out, "%s  %s  attempt %s  %-26s %s  %d B  %s\n",
		in.now().Format("15:04:05.000"), outcomeMark(status), terminal.Brief(r.Header.Get("posthorn-attempt"), 10),
		terminal.Brief(r.Header.Get("posthorn-event-type"), 100), terminal.Brief(r.Header.Get("webhook-id"), 150), len(body), terminal.Printable(verdict))
	w.WriteHeader(status)
}

func outcomeMark(status int) string {
	if status < 300 {
		return fmt.Sprintf("<- %d ok  ", status)
	}
	return fmt.Sprintf("<- %d FAIL", status)
}

// judge answers as a good receiver does: a bad signature is refused whatever
// else is wrong, a repeated id is acknowledged and not worked on twice.
func (in *inbox) judge(h http.Header, body []byte) (status int, verdict string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.verifier == nil {
		return http.StatusServiceUnavailable, "not ready yet"
	}
	if err := in.verifier.Verify(h, body); err != nil {
		return http.StatusBadRequest, "signature NOT valid: " + err.Error()
	}
	if left := in.failUntil.Sub(in.now()); left > 0 {
		return in.failWith, fmt.Sprintf("signature valid; failing as you asked, for %s more", left.Round(time.Second))
	}
	id := h.Get("webhook-id")
	if len(in.seen) >= maxSeen {
		clear(in.seen)
	}
	in.seen[id]++
	if in.seen[id] > 1 {
		return http.StatusNoContent, "signature valid; seen before, ignored"
	}
	in.verified++
	return http.StatusNoContent, "signature valid"
}

// fail makes the inbox answer an error for a while:
// POST /fail?for=20s&status=503.
func (in *inbox) fail(w http.ResponseWriter, r *http.Request) {
	length, err := time.ParseDuration(r.URL.Query().Get("for"))
	if err != nil || length < 0 || length > 24*time.Hour {
		http.Error(w, "say for how long: POST /fail?for=20s (0s to 24h), optionally &status=503", http.StatusBadRequest)
		return
	}
	status := http.StatusServiceUnavailable
	if s := r.URL.Query().Get("status"); s != "" {
		if status, err = strconv.Atoi(s); err != nil || status < 300 || status > 599 {
			http.Error(w, "status is 300 to 599", http.StatusBadRequest)
			return
		}
	}
	in.mu.Lock()
	in.failUntil, in.failWith = in.now().Add(length), status
	in.mu.Unlock()
	fmt.Fprintf(in.out, "%s  the inbox answers %d for %s; watch the attempts come again\n", in.now().Format("15:04:05.000"), status, length)
	fmt.Fprintf(w, "the inbox answers %d for %s\n", status, length)
}

// verifiedCount is how many distinct events came with a valid signature.
func (in *inbox) verifiedCount() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.verified
}
