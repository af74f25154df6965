package hell

import (
	"context"
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// Zone answers questions about names. n counts the questions about the name's
// addresses, from 1. An address may be written "alias=address", which is a CNAME
// record and the alias's address. Without addresses the response code is sent; if
// that is 0 and the list nil, nothing is.
type Zone func(name string, n int) (addrs []string, rcode int)

// TooLarge is no address: see [Zone].
const TooLarge = "too large for UDP"

// NameServer answers DNS questions on a loopback UDP socket.
type NameServer struct {
	net.PacketConn
	mu    sync.Mutex
	asked map[string]int
	zone  Zone
}

// NewNameServer serves the zone until the test ends.
func NewNameServer(t testing.TB, zone Zone) *NameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &NameServer{PacketConn: pc, zone: zone, asked: map[string]int{}}
	var wg sync.WaitGroup
	wg.Go(s.serve)
	t.Cleanup(func() { pc.Close(); wg.Wait() })
	return s
}

// Resolver asks this server.
func (s *NameServer) Resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.LocalAddr().String())
	}}
}

// Asked returns how often the name's addresses were asked for.
func (s *NameServer) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[name]
}

func (s *NameServer) serve() {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.ReadFrom(buf)
		if err != nil {
			return
		}
		if reply := s.reply(buf[:n]); reply != nil {
			s.WriteTo(reply, from)
		}
	}
}

const typeA, typeCNAME, typeAAAA = 1, 5, 28

func (s *NameServer) reply(q []byte) []byte {
	end := 12
	var labels []string
	for q[end] != 0 {
		labels = append(labels, string(q[end+1:end+1+int(q[end])]))
		end += int(q[end]) + 1
	}
	name := strings.ToLower(strings.Join(labels, "."))
	end += 5 // the root label, type and class
	kind := binary.BigEndian.Uint16(q[end-4:])
	s.mu.Lock()
	if kind == typeA {
		s.asked[name]++
	}
	addrs, rcode := s.zone(name, max(s.asked[name], 1))
	s.mu.Unlock()
	if addrs == nil && rcode == 0 {
		return nil
	}
	m := append([]byte{}, q[:end]...)
	binary.BigEndian.PutUint16(m[2:], 0x8180|uint16(rcode))
	binary.BigEndian.PutUint16(m[10:], 0) // no additional records
	if len(addrs) == 1 && addrs[0] == TooLarge {
		m[2] |= 2 // TC: truncated
		binary.BigEndian.PutUint16(m[6:], 0)
		return m
	}
	count := uint16(0)
	owner := []byte{0xc0, 12}
	for _, text := range addrs {
		if alias, addr, ok := strings.Cut(text, "="); ok {
			m, owner, text = appendRecord(m, owner, typeCNAME, wireName(alias)), wireName(alias), addr
			count++
		}
		if ip := netip.MustParseAddr(text); ip.Is4() == (kind == typeA) && (kind == typeA || kind == typeAAAA) {
			m = appendRecord(m, owner, kind, ip.AsSlice())
			count++
		}
	}
	binary.BigEndian.PutUint16(m[6:], count)
	return m
}

// appendRecord appends a record of class IN that may not be cached.
func appendRecord(m, owner []byte, kind uint16, data []byte) []byte {
	m = append(m, owner...)
	m = binary.BigEndian.AppendUint16(m, kind)
	m = append(m, 0, 1, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, uint16(len(data)))
	return append(m, data...)
}

func wireName(name string) []byte {
	var b []byte
	for label := range strings.SplitSeq(name, ".") {
		b = append(append(b, byte(len(label))), label...)
	}
	return append(b, 0)
}
