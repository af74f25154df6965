// Command receiver is a whole receiver of webhooks, to begin one's own with. It
// lets through what is signed and new, acknowledges at once, and works afterwards:
//
//	WEBHOOK_SECRET=whsec_… go run ./examples/receiver
//	posthorn check http://127.0.0.1:3000/hooks
//
// While a secret is rotated, WEBHOOK_SECRET holds both, separated by a space.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/posthorn/posthorn/webhook"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:3000", "address to listen on")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, strings.Fields(os.Getenv("WEBHOOK_SECRET"))); err != nil {
		fmt.Fprintln(os.Stderr, "receiver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, secrets []string) error {
	jobs := make(chan *webhook.Event, 1000)
	hooks, err := handler(secrets, jobs)
	if err != nil {
		return fmt.Errorf("WEBHOOK_SECRET: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/hooks", hooks)
	server := &http.Server{Addr: listen, Handler: mux, ReadTimeout: 20 * time.Second}
	worked, drained := make(chan bool), make(chan bool)
	go func() {
		defer close(worked)
		for e := range jobs {
			work(e)
		}
	}()
	go func() {
		defer close(drained)
		<-ctx.Done()
		drain, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := server.Shutdown(drain); err != nil {
			slog.Error("requests were cut off", "error", err)
		}
	}()
	slog.Info("receiving", "url", "http://"+listen+"/hooks")
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	<-drained // no handler puts anything in any more
	close(jobs)
	<-worked
	return nil
}

// handler puts genuine events into jobs, each once, and acknowledges them. Jobs in
// memory are lost when the process dies, as are the ids that were seen: where that
// matters, write both to a database in one transaction, with a [webhook.Seen] on a
// table whose id column is unique.
func handler(secrets []string, jobs chan<- *webhook.Event) (http.Handler, error) {
	verifier, err := webhook.NewVerifier(secrets...)
	if err != nil {
		return nil, err
	}
	receiver := &webhook.Receiver{
		Verifier: verifier,
		Refused: func(r *http.Request, err error) {
			slog.Warn("refused", "from", r.RemoteAddr, "why", err)
		},
	}
	return receiver.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case jobs <- webhook.FromContext(r.Context()):
			w.WriteHeader(http.StatusNoContent)
		default: // too much to do: the event is sent again later
			w.Header().Set("Retry-After", "30")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})), nil
}

// work is what the events are for.
func work(e *webhook.Event) {
	log := slog.With("id", e.ID, "type", e.Type, "test", e.Test)
	switch {
	case strings.HasPrefix(e.Type, "cases."):
		var c struct {
			ID any `json:"id"`
		}
		if err := e.Decode(&c); err != nil {
			log.Error("not understood", "error", err)
			return
		}
		log.Info("a case changed", "case", c.ID)
	default: // new types come: they are no error
		log.Info("ignored")
	}
}
