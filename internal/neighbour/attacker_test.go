package neighbour

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/posthorn/posthorn/internal/proof"
)

// attackEnv names the attack that this process is to make, orderEnv holds an [order].
const (
	attackEnv = "POSTHORN_TEST_ATTACK"
	orderEnv  = "POSTHORN_TEST_ATTACK_ORDER"
)

// order is what the attackers' process needs to know.
type order struct {
	URL    string
	Tokens [][]string // by tenant
	File   string     // the store's
	Long   bool
}

// hostile is the attackers' side.
type hostile struct {
	order
	// did counts what was done, by a word for it.
	mu  sync.Mutex
	did map[string]*atomic.Int64
}

// api calls as a tenant, by one of its tokens.
func (h *hostile) api(tenant, token int) proof.API {
	tokens := h.Tokens[tenant%len(h.Tokens)]
	return proof.API{URL: h.URL, Token: tokens[token%len(tokens)], HTTP: client}
}

// client has room for everything that an attack keeps open.
var client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 512}}

// scaled is n in the long form, and a tenth of it in the short one.
func (h *hostile) scaled(n int) int {
	if h.Long {
		return n
	}
	return max(1, n/10)
}

// count notes that something was done.
func (h *hostile) count(what string) {
	h.mu.Lock()
	c := h.did[what]
	if c == nil {
		c = new(atomic.Int64)
		h.did[what] = c
	}
	h.mu.Unlock()
	c.Add(1)
}

// answered counts an answer by its status.
func (h *hostile) answered(err error) {
	var s *proof.Status
	switch {
	case err == nil:
		h.count("2xx")
	case errors.As(err, &s):
		h.count(strconv.Itoa(s.Code))
	default:
		h.count("broken off")
	}
}

// every does something n times a second until ctx ends, at most many at a time.
func (h *hostile) every(ctx context.Context, n float64, many int, do func(i int)) {
	tick := time.NewTicker(time.Duration(float64(time.Second) / n))
	defer tick.Stop()
	places := make(chan struct{}, many)
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
			go func() { defer func() { <-places }(); do(i) }()
		default: // as many as it may have are under way
		}
	}
}

// attackMain is the attackers' process: it prepares, says so on standard output,
// attacks when something comes on standard input, and on SIGTERM says what it did.
func attackMain(name string) int {
	h := &hostile{did: make(map[string]*atomic.Int64)}
	if err := json.Unmarshal([]byte(os.Getenv(orderEnv)), &h.order); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	for _, a := range attacks {
		if a.name != name {
			continue
		}
		run, err := a.prepare(ctx, h)
		if err != nil {
			fmt.Fprintf(os.Stderr, "preparing: %v\n", err)
			return 1
		}
		fmt.Println("ready")
		if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
			return 1
		}
		run(ctx)
		<-ctx.Done()
		h.mu.Lock()
		defer h.mu.Unlock()
		said, err := json.Marshal(h.did, json.Deterministic(true), json.WithMarshalers(
			json.MarshalFunc(func(c *atomic.Int64) ([]byte, error) { return strconv.AppendInt(nil, c.Load(), 10), nil })))
		if err != nil {
			return 1
		}
		fmt.Println(string(said))
		return 0
	}
	fmt.Fprintln(os.Stderr, "no such attack")
	return 1
}

// attacker is the attackers' process, seen from the test.
type attacker struct {
	cmd    *exec.Cmd
	lines  *bufio.Reader
	exited chan error
	let    context.CancelFunc // ends the holding
	held   sync.WaitGroup
}

// startAttack makes the hostile tenants, and returns when the attack has begun.
func startAttack(ctx context.Context, t *testing.T, a *attack, s *proof.Server, platform proof.API) (*attacker, error) {
	o := order{URL: platform.URL, File: s.File(), Long: *long}
	for i := range max(a.tenants, 1) {
		name := fmt.Sprintf("hostile%d", i)
		if err := newTenant(ctx, platform, name); err != nil {
			return nil, err
		}
		var tokens []string
		for range max(a.tokens, 1) {
			api, err := newToken(ctx, platform, name)
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, api.Token)
		}
		o.Tokens = append(o.Tokens, tokens)
	}
	told, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	at := &attacker{cmd: exec.Command(self), exited: make(chan error, 1)}
	at.cmd.Env = append(proof.Environ(), attackEnv+"="+a.name, orderEnv+"="+string(told))
	at.cmd.Stderr = t.Output()
	in, err := at.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := at.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := at.cmd.Start(); err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = at.cmd.Process.Kill() })
	at.lines = bufio.NewReader(out)
	if line, err := at.lines.ReadString('\n'); err != nil || line != "ready\n" {
		return nil, fmt.Errorf("the attackers said %q: %w", line, err)
	}
	holding, let := context.WithCancel(ctx)
	at.let = let
	at.held.Go(func() { hold(holding, at.cmd.Process) })
	if _, err := io.WriteString(in, "\n"); err != nil {
		return nil, err
	}
	// The attack has taken what it can get.
	begun := max(a.lead, 3*time.Second)
	if !*long {
		begun = time.Second / 2
	}
	select {
	case <-time.After(begun):
		return at, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// running is an error when the attackers have ended by themselves.
func (at *attacker) running() error {
	if err := at.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		return fmt.Errorf("the attackers ended: %w", err)
	}
	return nil
}

// stop ends the attack and returns what the attackers say that they did.
func (at *attacker) stop() string {
	at.let()
	at.held.Wait()
	_ = at.cmd.Process.Signal(syscall.SIGTERM)
	said, _ := io.ReadAll(at.lines)
	_ = at.cmd.Wait()
	return strings.TrimSpace(string(said))
}

// hold keeps a process at half a processor: whenever it has used more, it is stopped
// until it has not.
func hold(ctx context.Context, p *os.Process) {
	const part, look = 0.5, 5 * time.Millisecond
	tick := time.NewTicker(look)
	defer tick.Stop()
	used, began, stopped := processorTime(p.Pid), time.Now(), false
	for {
		select {
		case <-ctx.Done():
			_ = p.Signal(syscall.SIGCONT)
			return
		case <-tick.C:
		}
		over := processorTime(p.Pid)-used > time.Duration(part*float64(time.Since(began)))
		if over != stopped {
			stopped = over
			sig := syscall.SIGCONT
			if over {
				sig = syscall.SIGSTOP
			}
			_ = p.Signal(sig)
		}
	}
}

// processorTime is what the process has used, by /proc, in hundredths of a second.
func processorTime(pid int) time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}
