package bench

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"sync"

	"github.com/posthorn/posthorn/internal/web"
)

// Relay is the server of the second yardstick: it takes an event by net/http,
// signs it, posts it on to the URL by net/http and answers after that. It keeps
// nothing and checks nothing, so it is what two HTTP hops and a signature cost.
// It writes its address to out and ends with ctx, or with in.
func Relay(ctx context.Context, to string, in io.Reader, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, ln.Addr()); err != nil {
		return err
	}
	const conns = 4096
	client := &http.Client{Transport: &http.Transport{MaxIdleConns: conns, MaxIdleConnsPerHost: conns}}
	key := make([]byte, 32)
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	server := &http.Server{Handler: web.NewHosts().Guarded(ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := buffers.Get().(*bytes.Buffer)
		defer buffers.Put(body)
		body.Reset()
		if _, err := body.ReadFrom(r.Body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		if err := signAndPost(r.Context(), client, to, body.Bytes(), "evt_relay", key); err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
		}
	}))}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	go func() {
		_, _ = io.Copy(io.Discard, in) // until whoever started it is gone
		server.Close()
	}()
	if err := server.Serve(ln); err != http.ErrServerClosed {
		return err
	}
	return nil
}

// relay drives the relay as a process of its own, as the service is one, with
// the load's connections and rate.
func relay(ctx context.Context, c Config) (Yardstick, error) {
	c = c.plain()
	r, err := newReceiver(c)
	if err != nil {
		return Yardstick{}, err
	}
	defer r.Close()
	cmd := exec.CommandContext(ctx, c.Binary, "bench", "relay", r.url(0))
	in, err := cmd.StdinPipe()
	if err != nil {
		return Yardstick{}, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return Yardstick{}, err
	}
	if err := cmd.Start(); err != nil {
		return Yardstick{}, err
	}
	defer func() {
		in.Close()
		_ = cmd.Wait() // it has nothing to say
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return Yardstick{}, fmt.Errorf("the relay did not start: %w", err)
	}
	l := newLedger(c, c.events())
	r.ledger.Store(l)
	before := cpuTime(cmd.Process.Pid)
	g := generator{config: c, ledger: l, request: relaying(c, strings.TrimSpace(address))}
	done := watch(c, "yardstick: relay, two hops and a signature", l)
	err = g.run(ctx)
	done()
	if err != nil {
		return Yardstick{}, fmt.Errorf("relay: %w", err)
	}
	report := l.report()
	y := Yardstick{PerSecond: report.DeliveredPerSecond, Receipt: report.Receipt}
	if before >= 0 {
		y.CPU = milliseconds(cpuTime(cmd.Process.Pid)-before) / float64(max(report.Delivered, 1))
	}
	return y, nil
}
