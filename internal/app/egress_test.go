package app

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/tally"
)

const acknowledged = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

// Each bad url is refused when an endpoint is made and when it is changed, with a
// sentence that names no address, and changes nothing.
func TestURLsAreJudgedAtRegistration(t *testing.T) {
	w := networkForTest(t, nil)
	for _, raw := range hell.GoodURLs {
		e, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: raw, Events: []string{"*"}})
		if err != nil || e.URL != raw {
			t.Errorf("POST %s: %v", raw, err)
		}
	}
	const first = "https://partner.example.com/hooks"
	e, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: first, Events: []string{"*"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, raw := range hell.BadURLs {
		_, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: raw, Events: []string{"*"}})
		addressFree(t, "POST "+raw, refusal(t, "POST "+raw, err))
		_, err = w.partner.UpdateEndpoint(t.Context(), e.ID, client.EndpointChange{URL: &raw})
		addressFree(t, "PATCH "+raw, refusal(t, "PATCH "+raw, err))
	}
	if now, err := w.partner.Endpoint(t.Context(), e.ID); err != nil || now.URL != first || now.ETag != e.ETag {
		t.Errorf("a refused change left %+v, %v", now, err)
	}
	tally.Count(t, "a url that leads where it may not is refused by POST and PATCH", 2*len(hell.BadURLs))
}

// everywhere listens on all addresses of the machine and counts what comes.
func everywhere(t *testing.T) (port string, conns *atomic.Int64) {
	t.Helper()
	ln, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	conns = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			conns.Add(1)
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port, conns
}

// machine returns the addresses of this machine, loopback included.
func machine(t *testing.T) (list []string) {
	t.Helper()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && !p.Addr().IsLinkLocalUnicast() {
			list = append(list, p.Addr().Unmap().String())
		}
	}
	return list
}

// Names of public form lead to each kind of address that is not public, alone, in
// front of and behind one that is open, and by a CNAME. All are refused at the
// dial, in the same words, and nothing is dialled.
func TestNamesAreJudgedAtTheDial(t *testing.T) {
	port, conns := everywhere(t)
	var answers [][]string
	for _, ip := range append(machine(t), "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "::", "::1", "::ffff:127.0.0.2", "::ffff:10.0.0.1", "::127.0.0.1", "::ffff:0:127.0.0.1",
		"64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
		"169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fe80::1", "fec0::1", "fc00::1",
		"ff02::1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "4000::1") {
		if ip == "127.0.0.1" {
			continue // the one that is open
		}
		answers = append(answers, []string{ip}, []string{"127.0.0.1", ip}, []string{ip, "127.0.0.1"}, []string{"localhost=" + ip})
	}
	w := networkForTest(t, func(name string, _ int) ([]string, int) {
		var i int
		if _, err := fmt.Sscanf(name, "n%d.example.com", &i); err != nil {
			return nil, 3
		}
		return answers[i], 0
	}, "POSTHORN_ALLOW_PRIVATE=127.0.0.1/32", "POSTHORN_ALLOW_HTTP=true")
	byID := map[string]int{}
	for i := range answers {
		byID[w.endpoint(t, fmt.Sprintf("http://n%d.example.com:%s/", i, port))] = i
	}
	words := map[string]bool{}
	for id, d := range w.deliver(t, `{}`) {
		if len(d.Attempts) != 1 || d.Attempts[0].Class != "refused_by_policy" || d.Attempts[0].ResponseBody != "" {
			t.Errorf("%v: %+v, want one attempt that is refused", answers[byID[id]], d.Attempts)
			continue
		}
		addressFree(t, strings.Join(answers[byID[id]], " "), d.Attempts[0].Explanation)
		words[d.Attempts[0].Explanation] = true
	}
	if n := conns.Load(); n != 0 {
		t.Errorf("%d connections were made to this machine", n)
	}
	if len(words) != 1 {
		t.Errorf("the explanations tell addresses apart: %v", words)
	}
	tally.Count(t, "a name that leads where it may not is refused at the dial, nothing dialled", len(answers))
}

// Names below a last label that is on no list, and with underscores where the operator
// allows them, are registered, and judged at the dial as all others.
func TestNamesOnNoListAreJudgedAtTheDial(t *testing.T) {
	r := hell.Listen(t, nil, hell.Answering(acknowledged))
	_, port, _ := net.SplitHostPort(r.Addr().String())
	w := networkForTest(t, func(name string, _ int) ([]string, int) {
		if strings.HasPrefix(name, "bad") {
			return []string{"127.0.0.2"}, 0
		}
		return []string{"127.0.0.1"}, 0
	}, "POSTHORN_ALLOW_PRIVATE=127.0.0.1/32", "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_UNDERSCORE_HOSTS=true")
	want := map[string]string{}
	for host, class := range map[string]string{
		"good.newtld": "ok", "good.x0": "ok", "good.cafe": "ok", "good_hooks.example.com": "ok", "_good.good_hooks.newtld": "ok",
		"bad.newtld": "refused_by_policy", "bad.zz": "refused_by_policy", "bad_hooks.example.com": "refused_by_policy",
	} {
		want[w.endpoint(t, "http://"+host+":"+port+"/")] = class
	}
	for id, d := range w.deliver(t, `{}`) {
		if len(d.Attempts) != 1 || d.Attempts[0].Class != want[id] {
			t.Errorf("%+v, want %s", d.Attempts, want[id])
		}
	}
}

// A name that led to an open address leads elsewhere at the next look-up, and back
// again. Each attempt looks up once and dials what it judged.
func TestRebindingIsRefused(t *testing.T) {
	r := hell.Listen(t, nil, hell.Answering(acknowledged))
	_, port, _ := net.SplitHostPort(r.Addr().String())
	forbidden, err := net.Listen("tcp4", "127.0.0.2:"+port)
	if err != nil {
		t.Skipf("this machine has no 127.0.0.2: %v", err)
	}
	defer forbidden.Close()
	w := networkForTest(t, func(_ string, n int) ([]string, int) {
		if n%2 == 1 {
			return []string{"127.0.0.1"}, 0
		}
		return []string{"127.0.0.2"}, 0
	}, "POSTHORN_ALLOW_PRIVATE=127.0.0.1/32", "POSTHORN_ALLOW_HTTP=true")
	id := w.endpoint(t, "http://partner.example.com:"+port+"/")
	const rounds = 6
	for n := range rounds {
		d := w.deliver(t, fmt.Sprintf(`{"n":%d}`, n))[id]
		want := "ok"
		if n%2 == 1 {
			want = "refused_by_policy"
		}
		if len(d.Attempts) != 1 || d.Attempts[0].Class != want {
			t.Errorf("round %d: %+v, want %s", n, d.Attempts, want)
		}
	}
	if conns, requests := r.Counts(); conns != rounds/2 || requests != rounds/2 {
		t.Errorf("%d connections, %d requests, want %d", conns, requests, rounds/2)
	}
	tally.Count(t, "a name that changes between look-ups is judged at each", rounds)
}

// Posthorn's own listeners are refused under each address and name that leads to
// them, whatever --allow-private opens.
func TestOwnListenersAreRefused(t *testing.T) {
	open := []string{"127.0.0.0/8", "::1/128"}
	all := machine(t)
	for _, ip := range all {
		open = append(open, netip.PrefixFrom(netip.MustParseAddr(ip), netip.MustParseAddr(ip).BitLen()).String())
	}
	cases := 0
	for _, listen := range []string{"0.0.0.0:0", "[::]:0", "127.0.0.1:0"} {
		reach := append([]string{"127.0.0.1", "127.0.0.9", "::1"}, all...)
		if listen == "127.0.0.1:0" {
			reach = []string{"127.0.0.1"}
		}
		w := networkForTest(t, func(name string, _ int) ([]string, int) {
			var i int
			if _, err := fmt.Sscanf(name, "n%d.example.com", &i); err != nil {
				return nil, 3
			}
			return []string{reach[i]}, 0
		}, "POSTHORN_LISTEN="+listen, "POSTHORN_OPS_LISTEN="+listen, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE="+strings.Join(open, ","))
		urls := map[string]string{}
		for _, ln := range []net.Listener{w.listener, w.opsLn} {
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			urls[w.endpoint(t, "http://localhost:"+port+"/v2.3/endpoints")] = "localhost"
			for i, ip := range reach {
				if listen == "0.0.0.0:0" && strings.Contains(ip, ":") {
					continue // nothing of ours listens there
				}
				_, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: "http://" + net.JoinHostPort(ip, port) + "/metrics", Events: []string{"*"}})
				addressFree(t, ip, refusal(t, listen+" at "+ip, err))
				urls[w.endpoint(t, fmt.Sprintf("http://n%d.example.com:%s/metrics", i, port))] = ip
				cases += 2
			}
			for _, ip := range []string{"0.0.0.0", "[::]", "[::ffff:127.0.0.1]"} {
				_, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: "http://" + ip + ":" + port + "/", Events: []string{"*"}})
				addressFree(t, ip, refusal(t, listen+" at "+ip, err))
				cases++
			}
		}
		for id, d := range w.deliver(t, `{}`) {
			if len(d.Attempts) != 1 || d.Attempts[0].Class != "refused_by_policy" {
				t.Errorf("listening on %s, sent to %s: %+v", listen, urls[id], d.Attempts)
			}
		}
	}
	tally.Count(t, "own listeners are refused under every address and name", cases)
}

// --allow-private opens what it names, on any port, and nothing beside it.
func TestAllowPrivateOpensWhatItNames(t *testing.T) {
	inside := hell.Listen(t, nil, hell.Answering(acknowledged))
	_, port, _ := net.SplitHostPort(inside.Addr().String())
	zone := func(name string, _ int) ([]string, int) {
		return []string{strings.ReplaceAll(strings.TrimSuffix(name, ".example.com"), "-", ".")}, 0
	}
	for _, tt := range []struct {
		open, host string
		literal    bool   // accepted at registration as an address
		class      string // by name
	}{
		{"", "127.0.0.1", false, "refused_by_policy"},
		{"127.0.0.1/32", "127.0.0.1", true, "ok"},
		{"127.0.0.0/8", "127.0.0.1", true, "ok"},
		{"127.0.0.2/31", "127.0.0.1", false, "refused_by_policy"},
		{"127.0.0.1/32", "127.0.0.2", false, "refused_by_policy"},
		{"10.0.0.0/8", "127.0.0.1", false, "refused_by_policy"},
		{"0.0.0.0/0", "127.0.0.1", true, "ok"},
		{"0.0.0.0/0", "169.254.169.254", false, "refused_by_policy"},
		{"0.0.0.0/0", "100.100.100.200", false, "refused_by_policy"},
		{"0.0.0.0/0", "168.63.129.16", false, "refused_by_policy"},
	} {
		t.Run(tt.open+" "+tt.host, func(t *testing.T) {
			w := networkForTest(t, zone, "POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE="+tt.open)
			_, err := w.partner.CreateEndpoint(t.Context(), client.NewEndpoint{URL: "http://" + tt.host + ":" + port + "/", Events: []string{"cases.updated"}})
			if (err == nil) != tt.literal {
				t.Errorf("registration: %v, want accepted %v", err, tt.literal)
			}
			id := w.endpoint(t, "http://"+strings.ReplaceAll(tt.host, ".", "-")+".example.com:"+port+"/")
			if d := w.deliver(t, `{}`)[id]; len(d.Attempts) != 1 || d.Attempts[0].Class != tt.class {
				t.Errorf("by name: %+v, want %s", d.Attempts, tt.class)
			}
			tally.Count(t, "--allow-private opens what it names and nothing beside it", 2)
		})
	}
}
