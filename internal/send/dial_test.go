package send

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// scriptedDial answers per address after a delay, and notes who was dialled.
type scriptedDial struct {
	began time.Time
	after map[string]time.Duration
	errs  map[string]error
	order []string
	mu    sync.Mutex
	peers []net.Conn
}

func (s *scriptedDial) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	ip := a.Addr().String()
	s.mu.Lock()
	s.order = append(s.order, ip+" at "+time.Since(s.began).String())
	s.mu.Unlock()
	select {
	case <-time.After(s.after[ip]):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if err := s.errs[ip]; err != nil {
		return nil, err
	}
	ours, theirs := net.Pipe()
	s.mu.Lock()
	s.peers = append(s.peers, theirs)
	s.mu.Unlock()
	return ours, nil
}

func TestAddressesAreTriedInTurn(t *testing.T) {
	const v6a, v6b, v4a, v4b = "2606::1", "2606::2", "93.184.215.14", "93.184.215.15"
	refusal, noRoute := error(syscall.ECONNREFUSED), error(syscall.ENETUNREACH)
	for _, tt := range []struct {
		name  string
		addrs []string
		after map[string]time.Duration
		errs  map[string]error
		want  []string
		err   error
		took  time.Duration
	}{
		{"the first one works", []string{v6a, v4a}, nil, nil, []string{v6a + " at 0s"}, nil, 0},
		{"one kind after the other", []string{v4a, v4b}, nil, map[string]error{v4a: refusal}, []string{v4a + " at 0s", v4b + " at 0s"}, nil, 0},
		{"no IPv6 here", []string{v6a, v6b, v4a}, nil, map[string]error{v6a: noRoute, v6b: noRoute},
			[]string{v6a + " at 0s", v6b + " at 0s", v4a + " at 0s"}, nil, 0},
		{"the first kind hangs", []string{v6a, v4a}, map[string]time.Duration{v6a: time.Hour}, nil,
			[]string{v6a + " at 0s", v4a + " at 300ms"}, nil, 300 * time.Millisecond},
		{"the first kind is late but wins", []string{v6a, v4a}, map[string]time.Duration{v6a: 400 * time.Millisecond, v4a: time.Second}, nil,
			[]string{v6a + " at 0s", v4a + " at 300ms"}, nil, 400 * time.Millisecond},
		{"both fail, what the receiver did counts", []string{v6a, v4a}, nil, map[string]error{v6a: noRoute, v4a: refusal},
			[]string{v6a + " at 0s", v4a + " at 0s"}, refusal, 0},
		{"in the other order", []string{v4a, v6a}, nil, map[string]error{v6a: noRoute, v4a: refusal},
			[]string{v4a + " at 0s", v6a + " at 0s"}, refusal, 0},
		{"no route at all", []string{v6a, v4a}, nil, map[string]error{v6a: noRoute, v4a: noRoute},
			[]string{v6a + " at 0s", v4a + " at 0s"}, noRoute, 0},
		{"time is shared", []string{v4a, v4b}, map[string]time.Duration{v4a: time.Hour}, nil,
			[]string{v4a + " at 0s", v4b + " at 5s"}, nil, 5 * time.Second},
		{"all hang", []string{v6a, v4a}, map[string]time.Duration{v6a: time.Hour, v4a: time.Hour}, nil,
			[]string{v6a + " at 0s", v4a + " at 300ms"}, context.DeadlineExceeded, 10 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &scriptedDial{began: time.Now(), after: tt.after, errs: tt.errs}
				c := &Client{dialOne: s.dial}
				var addrs []netip.Addr
				for _, a := range tt.addrs {
					addrs = append(addrs, netip.MustParseAddr(a))
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				nc, err := (&exchange{client: c}).dialAny(ctx, addrs, 443)
				if !errors.Is(err, tt.err) || (nc == nil) != (tt.err != nil) || time.Since(s.began) != tt.took {
					t.Errorf("%v after %v, want %v after %v", err, time.Since(s.began), tt.err, tt.took)
				}
				if diff := cmp.Diff(tt.want, s.order); diff != "" {
					t.Errorf("dialled (-want +got):\n%s", diff)
				}
				synctest.Wait()
				if nc != nil {
					nc.Close()
				}
			})
		})
	}
}

// A dialled connection that lost the race does not stay open.
func TestLoserOfTheRaceIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &scriptedDial{began: time.Now()}
		c := &Client{dialOne: func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			if a.Addr().Is6() { // deaf to the context, as a connection that is just being made
				ctx = context.WithoutCancel(ctx)
			}
			return s.dial(ctx, a)
		}}
		s.after = map[string]time.Duration{"2606::1": time.Second}
		nc, err := (&exchange{client: c}).dialAny(t.Context(), []netip.Addr{netip.MustParseAddr("2606::1"), netip.MustParseAddr("93.184.215.14")}, 443)
		if err != nil {
			t.Fatal(err)
		}
		advance(2 * time.Second)
		synctest.Wait()
		if len(s.peers) != 2 {
			t.Fatalf("%d connections were made", len(s.peers))
		}
		s.peers[1].SetReadDeadline(time.Now())
		if _, err := s.peers[1].Read(make([]byte, 1)); isTimeout(err) {
			t.Error("the loser is open")
		}
		nc.Close()
	})
}

// control is a wall of its own: it refuses whatever reached it.
func TestControlJudgesWhatIsDialled(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		network, address string
		ok               bool
	}{
		{"tcp4", "93.184.215.14:443", true}, {"tcp6", "[2606::1]:443", true},
		{"tcp4", "127.0.0.1:443", false}, {"tcp6", "[::1%lo]:443", false}, {"tcp6", "[::ffff:10.0.0.1]:443", false},
		{"tcp", "93.184.215.14:443", false}, {"udp4", "93.184.215.14:443", false}, {"unix", "/run/x.sock", false},
		{"tcp4", "93.184.215.14", false}, {"tcp4", "example.com:443", false}, {"tcp4", "93.184.215.14:22", false},
	} {
		if err := c.control(t.Context(), tt.network, tt.address, nil); (err == nil) != tt.ok {
			t.Errorf("%s %s: %v", tt.network, tt.address, err)
		}
	}
	if _, err := c.dialGuarded(t.Context(), netip.MustParseAddrPort("127.0.0.1:443")); err == nil {
		t.Error("loopback was dialled")
	} else if f, ok := errors.AsType[*fault](err); !ok {
		t.Errorf("the refusal is lost in %v", err)
	} else if f.class.String() != "refused_by_policy" {
		t.Errorf("class %v", f.class)
	}
}
