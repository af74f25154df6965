package send_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/hell"
	"github.com/posthorn/posthorn/internal/send"
)

const inNamespace = "POSTHORN_TEST_IN_NAMESPACE"

// The routes are this machine's here, and the errors the kernel's: a network
// namespace that has none, then IPv4 alone, then IPv6 alone.
func TestAWayOfOneKindOnly(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		repeatInNamespace(t)
		return
	}
	dns := hell.NewNameServer(t, func(name string, _ int) ([]string, int) {
		if strings.HasPrefix(name, "six.") {
			return []string{"2606:4700::1111"}, 0
		}
		return []string{"93.184.215.14"}, 0
	})
	class := func(url string) posthorn.Class {
		c := newClient(t, func(c *send.Config) { c.Resolver = dns.Resolver() })
		defer c.Close()
		var last posthorn.Class
		for range 2 { // one destination, alone
			last = mustSend(t, c, request(url)).Class
		}
		return last
	}
	const six, four = "https://six.example.com/", "https://four.example.com/"
	for _, tt := range []struct {
		name, set string
		url       string
		want      posthorn.Class
	}{
		{"no network", "link set lo up", six, posthorn.ClassLocal},
		{"no network", "", four, posthorn.ClassLocal},
		{"no network, a literal", "", "https://[2606:4700::1111]/", posthorn.ClassLocal},
		{"IPv4 only", "link add d0 type veth peer name d1; addr add 10.11.0.1/24 dev d0; link set d0 up; link set d1 up; route add default via 10.11.0.2", six, posthorn.ClassConnect},
		{"IPv4 only, a literal", "", "https://[2606:4700::1111]/", posthorn.ClassConnect},
		{"neighbours only", "route del default", four, posthorn.ClassConnect},
		{"a prohibited route", "route add prohibit 93.184.215.14", four, posthorn.ClassConnect},
		{"a closed route", "route del prohibit 93.184.215.14; route add unreachable 93.184.215.14", four, posthorn.ClassConnect},
		{"IPv6 only", "route del unreachable 93.184.215.14; addr del 10.11.0.1/24 dev d0; addr add 2606:4701::1/64 dev d0 nodad; route add default via 2606:4701::2", four, posthorn.ClassConnect},
	} {
		for command := range strings.SplitSeq(tt.set, ";") {
			if fields := strings.Fields(command); len(fields) > 0 {
				if out, err := exec.Command("ip", fields...).CombinedOutput(); err != nil {
					t.Fatalf("ip %s: %v: %s", command, err, out)
				}
			}
		}
		if got := class(tt.url); got != tt.want {
			t.Errorf("%s: %s is %v, want %v", tt.name, tt.url, got, tt.want)
		}
	}
}

// repeatInNamespace runs the test in a network namespace of its own.
func repeatInNamespace(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("iproute2 is not installed: not tried without routes of a kind")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Cloneflags, cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = syscall.CLONE_NEWNET, nil, nil
	}
	out, err := cmd.CombinedOutput()
	switch {
	case cmd.Process == nil || strings.Contains(string(out), "Operation not permitted") || strings.Contains(string(out), "Unknown device type"):
		t.Skipf("no network namespace may be made here: not tried without routes of a kind (%v)", err)
	case err != nil:
		t.Errorf("%s", out)
	}
}
