package config

import (
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/posthorn/posthorn"
)

var update = flag.Bool("update", false, "write the files that tests compare with")

const someKeys = "k1:tEuoLZGmhuyqUyUARbTLeVOPqr7H79IfjCcWslJeJNY="

// load loads settings from a file's text, an environment and flags.
func load(t *testing.T, text string, environ []string, args ...string) (Config, error) {
	t.Helper()
	src := Sources{Environ: environ, Flags: pflag.NewFlagSet("serve", pflag.ContinueOnError)}
	AddFlags(src.Flags, Settings(false)...)
	if err := src.Flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	if text != "" {
		src.File = write(t, "posthorn.yaml", text)
	}
	return Load(src)
}

func write(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func withKeys(more ...string) []string {
	return append([]string{"POSTHORN_ENCRYPTION_KEYS=" + someKeys}, more...)
}

func TestDefaultsAreTheContracts(t *testing.T) {
	c, err := load(t, "", withKeys())
	if err != nil {
		t.Fatal(err)
	}
	want := Config{
		Listen: "127.0.0.1:8420", OpsListen: "127.0.0.1:8421", StorePath: "./posthorn.db", EncryptionKeys: someKeys,
		Retention: 30 * 24 * time.Hour, RetainPayloads: 30 * 24 * time.Hour, RetainDeliveries: 30 * 24 * time.Hour, RetainAttempts: 30 * 24 * time.Hour,
		AuditRetention: 365 * 24 * time.Hour, RetrySchedule: posthorn.DefaultSchedule(), RetryJitter: 0.2,
		MaxInFlight: 4096, HostInFlight: 1024, HostRate: 2000, BacklogLimit: 1_000_000, MaxEndpoints: 1000, MaxConnections: 4096,
		LogLevel: slog.LevelInfo, LogFormat: "auto", ShutdownDelay: 2 * time.Second, DrainTimeout: 25 * time.Second,
		OIDCTenantClaim: "tenant", OIDCScopeClaim: "scope",
	}
	c.origins, c.raw = nil, nil
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

func TestPrecedence(t *testing.T) {
	file := "listen: 127.0.0.1:1\nmax-in-flight: 1\nmax-endpoints: 1\n"
	environ := withKeys("POSTHORN_LISTEN=127.0.0.1:2", "POSTHORN_MAX_IN_FLIGHT=2", "POSTHORN_BACKLOG_LIMIT=")
	c, err := load(t, file, environ, "--listen", "127.0.0.1:3")
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		setting string
		got     any
		want    any
		origin  string
	}{
		{"listen", c.Listen, "127.0.0.1:3", "--listen"},
		{"max-in-flight", c.MaxInFlight, 2, "POSTHORN_MAX_IN_FLIGHT"},
		{"max-endpoints", c.MaxEndpoints, 1, c.File},
		{"backlog-limit", c.BacklogLimit, 1_000_000, "default"}, // an empty variable is none
	} {
		if tc.got != tc.want || c.Origin(tc.setting) != tc.origin {
			t.Errorf("%s is %v from %s, want %v from %s", tc.setting, tc.got, c.Origin(tc.setting), tc.want, tc.origin)
		}
	}
	if !c.Chosen("listen") || c.Chosen("retention") {
		t.Error("Chosen does not tell what the user gave")
	}
}

func TestListsComeInThreeForms(t *testing.T) {
	for name, got := range map[string]func() (Config, error){
		"yaml list": func() (Config, error) {
			return load(t, "allow-private: [10.0.0.0/8, 192.168.1.1]\n", withKeys())
		},
		"commas": func() (Config, error) {
			return load(t, "", withKeys("POSTHORN_ALLOW_PRIVATE=10.0.0.0/8, 192.168.1.1"))
		},
		"repeated": func() (Config, error) {
			return load(t, "", withKeys(), "--allow-private", "10.0.0.0/8", "--allow-private", "192.168.1.1")
		},
	} {
		c, err := got()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		texts := []string{}
		for _, p := range c.AllowPrivate {
			texts = append(texts, p.String())
		}
		if diff := cmp.Diff([]string{"10.0.0.0/8", "192.168.1.1/32"}, texts); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFaultsNameTheSettingAndTheMend(t *testing.T) {
	secretKey := "k1:c2VjcmV0c2VjcmV0" // too short, and never to be printed
	for _, tc := range []struct {
		name, file string
		environ    []string
		want       []string // substrings, one of each line
	}{
		{"no key", "", nil, []string{`POSTHORN_ENCRYPTION_KEYS is not set`, "posthorn key generate"}},
		{"bad key", "", []string{"POSTHORN_ENCRYPTION_KEYS=" + secretKey}, []string{"POSTHORN_ENCRYPTION_KEYS: key k1", "posthorn key generate"}},
		{"unknown key", "lissten: x\n", withKeys(), []string{"posthorn.yaml: lissten is not a setting; did you mean listen?"}},
		{"nested", "tls:\n  cert: x\n", withKeys(), []string{"tls.cert is not a setting; did you mean tls-cert?"}},
		{"underscore", "ops_listen: off\n", withKeys(), []string{"did you mean ops-listen?"}},
		{"unknown variable", "", withKeys("POSTHORN_RETENTON=3d"), []string{"POSTHORN_RETENTON is not a setting; did you mean POSTHORN_RETENTION?"}},
		{"nothing alike", "zzzzzzzzzzz: 1\n", withKeys(), []string{`"posthorn serve --help" lists all`}},
		{"not yaml", "a: b: c\n", withKeys(), []string{"posthorn.yaml: "}},
		{"twice", "listen: a:1\nlisten: b:1\n", withKeys(), []string{"already defined"}},
		{"all at once", "listen: nowhere\nretry-jitter: 2\npublic-url: ftp://x\n", withKeys(),
			[]string{`listen: "nowhere"`, `retry-jitter: "2"`, `public-url:`}},
		{"list for one", "listen: [a, b]\n", withKeys(), []string{"listen: is a list"}},
		{"port", "listen: 127.0.0.1:99999\n", withKeys(), []string{`"99999" is not a port`}},
		{"duration", "retention: 30\n", withKeys(), []string{`"30" is not a duration`}},
		{"retention", "retention: 5m\nretry-schedule: 5s\n", withKeys(), []string{"retention: 5m is not within 1h"}},
		{"payloads longer than events", "retention: 5d\nretain-payloads: 6d\n", withKeys(), []string{"retain-payloads: 6d is longer than retention, 5d"}},
		{"attempts longer than deliveries", "retain-deliveries: 5d\nretain-attempts: 6d\n", withKeys(), []string{"retain-attempts: 6d is longer than retain-deliveries, 5d"}},
		{"deliveries for no time", "retain-deliveries: 0s\n", withKeys(), []string{"retain-deliveries: 0s is less than 1h"}},
		{"schedule longer than payloads", "retain-payloads: 1d\n", withKeys(), []string{"retry-schedule: the waits take 3d3h35m5s, but payloads and deliveries are kept for 1d only"}},
		{"schedule longer than retention", "retention: 1d\n", withKeys(), []string{"retry-schedule: the waits take 3d3h35m5s, but events are kept for 1d"}},
		{"long delay", "shutdown-delay: 1h\n", withKeys(), []string{"shutdown-delay: 1h is longer than 10m; a load balancer"}},
		{"negative delay", "shutdown-delay: -2s\n", withKeys(), []string{`shutdown-delay: "-2s" is not a duration`}},
		{"long wait", "retry-schedule: 25h\n", withKeys(), []string{"25h is not within 24h"}},
		{"tls", "tls-cert: /dev/null\n", withKeys(), []string{"tls-cert and tls-key go together"}},
		{"missing file", "catalog: /nonexistent/x.yaml\n", withKeys(), []string{"/nonexistent/x.yaml: no such file"}},
		{"same port", "ops-listen: 127.0.0.1:8420\n", withKeys(), []string{"ops-listen: 127.0.0.1:8420 is the address of the API"}},
		{"host bits", "allow-private: 10.1.2.3/8\n", withKeys(), []string{"did you mean 10.0.0.0/8?"}},
		{"metadata", "allow-private: 169.254.0.0/16\n", withKeys(), []string{"only one by one"}},
		{"link-local", "allow-private: fe80::/10\n", withKeys(), []string{"write them as /128"}},
		{"postgres", "store: postgres://u:hunter2@db\n", withKeys(), []string{"postgres://USER@HOST:PORT/DATABASE"}},
		{"postgres, short", "store: postgres:x\n", withKeys(), []string{"postgres://USER@HOST:PORT/DATABASE"}},
		{"bare path", "store: /var/x.db\n", withKeys(), []string{"write sqlite:/var/x.db"}},
		{"proxy", "egress-proxy: http://u:hunter2@proxy/path\n", withKeys(), []string{"ends with its port"}},
		{"proxy, unreadable", "egress-proxy: 'http://u:hunter2@pro xy'\n", withKeys(), []string{"http://HOST:PORT"}},
		{"level", "log-level: loud\n", withKeys(), []string{`"loud" is none of debug, info, warn, error`}},
		{"NaN", "publish-rate: .nan\n", withKeys(), []string{"publish-rate"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := load(t, tc.file, tc.environ)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q:\n%v", want, err)
				}
			}
			for _, secret := range []string{"hunter2", "c2VjcmV0"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("the error holds a secret:\n%v", err)
				}
			}
			if lines := strings.Count(err.Error(), "\n") + 1; lines > max(1, len(tc.want)) {
				t.Errorf("one fault became %d:\n%v", lines, err)
			}
		})
	}
}

func TestKubernetesServiceLinksAreNoSettings(t *testing.T) {
	_, err := load(t, "", withKeys(
		"POSTHORN_SERVICE_HOST=10.0.0.1", "POSTHORN_SERVICE_PORT=8420", "POSTHORN_SERVICE_PORT_HTTP=8420",
		"POSTHORN_PORT=tcp://10.0.0.1:8420", "POSTHORN_PORT_8420_TCP=tcp://10.0.0.1:8420", "POSTHORN_PORT_8420_TCP_ADDR=10.0.0.1",
		"POSTHORN_OPS_SERVICE_HOST=10.0.0.1", "POSTHORN_OPS_PORT_8421_TCP_PROTO=tcp",
		"POSTHORN_SERVER=http://x", "POSTHORN_TOKEN=x", "OTHER=x"))
	if err != nil {
		t.Error(err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	c, err := load(t, "egress-proxy: http://user:hunter2@127.0.0.1:3128\n", withKeys())
	if err != nil {
		t.Fatal(err)
	}
	if c.EgressProxy.String() != "http://user:hunter2@127.0.0.1:3128" {
		t.Error("the proxy's password is lost")
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "config", &c)
	for name, text := range map[string]string{"String": c.String(), "the log": log.String()} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "tEuo") {
			t.Errorf("%s holds a secret:\n%s", name, text)
		}
		if !strings.Contains(text, "k1:***") {
			t.Errorf("%s does not name the key's id:\n%s", name, text)
		}
	}
}

func TestKeysFile(t *testing.T) {
	other := "k2:AAAALZGmhuyqUyUARbTLeVOPqr7H79IfjCcWslJeJNY="
	path := write(t, "keys", other+"\n"+someKeys+"\n")
	c, err := load(t, "encryption-keys-file: "+path+"\n", nil)
	if err != nil || c.EncryptionKeys != other+","+someKeys {
		t.Errorf("got %q, %v", c.EncryptionKeys, err)
	}
	if _, err := load(t, "encryption-keys-file: "+path+"\n", withKeys()); err == nil || !strings.Contains(err.Error(), "keep one of the two") {
		t.Errorf("both given: %v", err)
	}
	empty := write(t, "keys", "\n")
	if _, err := load(t, "encryption-keys-file: "+empty+"\n", nil); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("empty file: %v", err)
	}
}

func TestDevIsOpenToThisMachineAndReadsNoDefaultFile(t *testing.T) {
	path := write(t, "posthorn.yaml", "listen: 10.0.0.1:1\n")
	d, err := LoadDev(Sources{DefaultFiles: []string{path}, Environ: []string{"POSTHORN_STORE=sqlite:/var/lib/production.db", "POSTHORN_SHUTDOWN_DELAY=5s"}})
	if err != nil {
		t.Fatal(err)
	}
	if d.Listen != "127.0.0.1:8420" || d.Dir != "./.posthorn-dev" || !d.AllowHTTP || len(d.AllowPrivate) != 2 || d.Samples != 3*time.Second {
		t.Errorf("got %+v", d)
	}
	if d.ShutdownDelay != 0 {
		t.Errorf("Ctrl-C of the demo is waited for by %s", d.ShutdownDelay)
	}
	if d.StorePath != "" {
		t.Errorf("the demo opens %s", d.StorePath)
	}
}

func TestTheFirstDefaultFileCounts(t *testing.T) {
	first, second := write(t, "a.yaml", "max-endpoints: 1\n"), write(t, "b.yaml", "max-endpoints: 2\nlisten: 127.0.0.1:2\n")
	c, err := Load(Sources{DefaultFiles: []string{"/nonexistent", first, second}, Environ: withKeys()})
	if err != nil || c.MaxEndpoints != 1 || c.Listen != "127.0.0.1:8420" || c.File != first {
		t.Errorf("got %d, %s, %s, %v", c.MaxEndpoints, c.Listen, c.File, err)
	}
	if _, err := Load(Sources{File: "/nonexistent.yaml", Environ: withKeys()}); err == nil {
		t.Error("a named file that is not there is no error")
	}
}

func TestLoadStoreMindsNothingElse(t *testing.T) {
	path := write(t, "posthorn.yaml", "store: sqlite:/srv/x.db\ntls-cert: /nonexistent\n")
	if got, err := LoadStore(Sources{File: path}); err != nil || got != "/srv/x.db" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestEverySettingIsWhole holds the table to its promises.
func TestEverySettingIsWhole(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range settings {
		if seen[s.Name] || s.Help == "" || strings.HasSuffix(s.Help, ".") || s.for_ == 0 || (s.set == nil) == (s.dev == nil) {
			t.Errorf("%s: twice, without help, with a full stop, for nobody, or set by none or two", s.Name)
		}
		seen[s.Name] = true
		for _, dev := range []bool{false, true} {
			var d Dev
			if text := s.in(dev).Default; text != "" {
				if err := d.apply(s, text); err != nil {
					t.Errorf("%s: the default is wrong: %v", s.Name, err)
				}
			}
		}
	}
}

func TestDocumentation(t *testing.T) {
	path := filepath.FromSlash("../../docs/configuration.md")
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(Markdown()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(b), Markdown()); diff != "" {
		t.Errorf("docs/configuration.md is out of date; \"go test ./internal/config -update\" writes it\n%s", diff)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "0s": 0, "0d": 0, "90s": 90 * time.Second, "1.5s": 1500 * time.Millisecond, "7d": 7 * day, "1d12h": 36 * time.Hour, "2h30m": 150 * time.Minute,
	} {
		got, err := ParseDuration(text)
		if err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
		if again, err := ParseDuration(FormatDuration(got)); err != nil || again != got {
			t.Errorf("%s is written %s, which is %v, %v", text, FormatDuration(got), again, err)
		}
	}
	for _, text := range []string{"", "30", "-1h", "+1h", "1d-1h", "d", "xd", "1.5d", "999999999d", "1w", "9999999h"} {
		if d, err := ParseDuration(text); err == nil {
			t.Errorf("%q is read as %v", text, d)
		}
	}
}

func FuzzDuration(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(30 * day))
	f.Fuzz(func(t *testing.T, n int64) {
		d := time.Duration(n)
		if d < 0 || d > 36_500*day {
			return
		}
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Errorf("%v is written %s, which is %v, %v", d, FormatDuration(d), got, err)
		}
	})
}

// The public URL may be several in each form that a list has; the first makes links.
func TestPublicURLs(t *testing.T) {
	want := []string{"https://hooks.example.com", "http://intern.example:8443/base"}
	for name, got := range map[string]func() (Config, error){
		"yaml list": func() (Config, error) {
			return load(t, "public-url: [https://hooks.example.com/, http://intern.example:8443/base/]\n", withKeys())
		},
		"commas": func() (Config, error) {
			return load(t, "", withKeys("POSTHORN_PUBLIC_URL=https://hooks.example.com, http://intern.example:8443/base"))
		},
		"repeated": func() (Config, error) {
			return load(t, "", withKeys(), "--public-url", want[0], "--public-url", want[1])
		},
	} {
		c, err := got()
		if err != nil || !slices.Equal(c.PublicURLs, want) || c.PublicURL() != want[0] {
			t.Errorf("%s: %q, %v", name, c.PublicURLs, err)
		}
	}
	if c, err := load(t, "", withKeys()); err != nil || c.PublicURL() != "" {
		t.Errorf("none: %q, %v", c.PublicURL(), err)
	}
	for _, bad := range []string{"hooks.example.com", "https://", "https://a.example,ftp://b.example", "https://u:s3cret@a.example", "https://a.example,https://b.example?x=1", "https://b\u00fccher.example"} {
		if _, err := load(t, "", withKeys("POSTHORN_PUBLIC_URL="+bad)); err == nil || !strings.Contains(err.Error(), "POSTHORN_PUBLIC_URL") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
