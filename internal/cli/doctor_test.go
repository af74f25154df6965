package cli_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/cli"
	"github.com/posthorn/posthorn/internal/secretbox"
)

func TestDoctorSeesWhatIsWrongWithAServer(t *testing.T) {
	for name, c := range map[string]struct {
		ahead  time.Duration
		status int
		text   string
		code   int
		says   string
	}{
		"all is well":          {0, 200, "ready", 0, "ok     server             its clock is this machine's"},
		"a clock ahead":        {time.Hour, 200, "ready", cli.ExitFailed, "differ by 1h"},
		"a clock behind":       {-2 * time.Minute, 200, "ready", cli.ExitFailed, "differ by 2m"},
		"not ready":            {0, 503, "the store cannot be written to", cli.ExitFailed, "is not ready: the store cannot be written to"},
		"a provider is away":   {0, 200, "ready; but the keys of https://idp.example could not be fetched yet", cli.ExitFailed, "the keys of https://idp.example"},
		"something else there": {0, 200, "<html>", cli.ExitFailed, "it is not Posthorn"},
		"it redirects":         {0, 302, "", cli.ExitFailed, "it is not Posthorn"},
	} {
		tokens := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "" {
				tokens++
			}
			w.Header().Set("Date", time.Now().Add(c.ahead).UTC().Format(http.TimeFormat))
			w.Header().Set("Location", "https://elsewhere.example/")
			w.WriteHeader(c.status)
			fmt.Fprintln(w, c.text)
		}))
		code, out, _ := run(t, []string{"HOME=" + t.TempDir()}, "doctor", "--server", s.URL)
		s.Close()
		if code != c.code || !strings.Contains(out, c.says) {
			t.Errorf("%s: it exits with %d and prints\n%s", name, code, out)
		}
		if tokens != 0 {
			t.Errorf("%s: a token was sent, and there is none", name)
		}
	}
}

// finding is one line of what doctor prints as JSON.
type finding struct{ Check, State, What, Mend string }

// examined runs doctor and returns what is wrong.
func examined(t *testing.T, environ []string, args ...string) (wrong []finding) {
	t.Helper()
	code, out, talk := run(t, environ, append([]string{"doctor", "--resolve", "localhost", "-o", "json"}, args...)...)
	var all []finding
	if err := json.Unmarshal([]byte(out), &all); err != nil {
		t.Fatalf("%v: %s%s", err, out, talk)
	}
	for _, f := range all {
		if f.State == "wrong" {
			wrong = append(wrong, f)
		}
	}
	if (code == 0) != (len(wrong) == 0) {
		t.Errorf("it exits with %d and finds %+v", code, wrong)
	}
	return wrong
}

// with sets variables of an environment, which has each once.
func with(environ []string, more ...string) []string {
	for _, one := range more {
		name, _, _ := strings.Cut(one, "=")
		environ = slices.DeleteFunc(environ, func(s string) bool { return strings.HasPrefix(s, name+"=") })
	}
	return append(environ, more...)
}

// Each seeded fault is found, with a command that mends it or shows how. Those that
// can be run here are run, and then doctor has nothing to say.
func TestDoctorNamesACommandForEachFault(t *testing.T) {
	w := newWorld(t)
	other := secretbox.Generate("k1")
	loose := w.file("loose.db")
	if code, _, talk := run(t, nil, "migrate", "--store", "sqlite:"+loose); code != 0 {
		t.Fatal(talk)
	}
	if err := os.Chmod(loose, 0o644); err != nil {
		t.Fatal(err)
	}
	if found := examined(t, w.environ()); found != nil {
		t.Fatalf("a sound installation: %+v", found)
	}
	command := regexp.MustCompile(`(^|; |then: )(posthorn|curl|chmod|export|openssl|df|getent|systemctl|journalctl|timedatectl|psql|sleep) \S`)
	for name, tc := range map[string]struct {
		seed  func()
		more  []string
		check string
		mends bool // the command as it is mends it
	}{
		"no keys":                      {nil, []string{"POSTHORN_ENCRYPTION_KEYS="}, "settings", false},
		"other bytes under a key's id": {nil, []string{"POSTHORN_ENCRYPTION_KEYS=" + other}, "keys", false},
		"a key that is not there":      {nil, []string{"POSTHORN_ENCRYPTION_KEYS=" + strings.Replace(other, "k1", "k2", 1)}, "keys", false},
		"sending is paused": {func() {
			if code, _, talk := run(t, append(w.environ(), "POSTHORN_TOKEN="+w.Admin), "sending", "pause"); code != 0 {
				t.Fatal(talk)
			}
		}, []string{"POSTHORN_TOKEN=" + w.Admin, "POSTHORN_TENANT=acme"}, "store", true},
		"no store":                {nil, []string{"POSTHORN_STORE=sqlite:" + w.file("none.db")}, "store", true},
		"others can read it":      {nil, []string{"POSTHORN_STORE=sqlite:" + loose}, "store", true},
		"a token nobody knows":    {nil, []string{"POSTHORN_TOKEN=pht_nobody"}, "token", false},
		"no server":               {nil, []string{"POSTHORN_SERVER=http://127.0.0.1:1"}, "server", false},
		"another server":          {nil, []string{"POSTHORN_SERVER=" + w.Receiver}, "server", false},
		"a setting out of range":  {nil, []string{"POSTHORN_RETENTION=1m"}, "settings", false},
		"a proxy that is away":    {nil, []string{"POSTHORN_EGRESS_PROXY=http://user:s3cret@127.0.0.1:1"}, "egress", false},
		"no certificate":          {nil, []string{"POSTHORN_TLS_CERT=" + w.file("body.json"), "POSTHORN_TLS_KEY=" + w.file("body.json")}, "certificate", false},
		"an empty token file":     {nil, []string{"POSTHORN_TOKEN=", "POSTHORN_TOKEN_FILE=" + os.DevNull}, "token", false},
		"a provider that is away": {nil, []string{"POSTHORN_OIDC_ISSUER=https://127.0.0.1:1", "POSTHORN_OIDC_AUDIENCE=x"}, "identity provider", false},
	} {
		if tc.seed != nil {
			tc.seed()
		}
		environ := with(w.environ(), tc.more...)
		found := examined(t, environ)
		if len(found) == 0 || !slices.ContainsFunc(found, func(f finding) bool { return f.Check == tc.check }) {
			t.Errorf("%s: found %+v", name, found)
		}
		for _, f := range found {
			if !command.MatchString(f.Mend) || strings.Contains(f.What+f.Mend, "s3cret") {
				t.Errorf("%s: no command mends %+v", name, f)
			}
			if !tc.mends {
				continue
			}
			if args := words(f.Mend); args[0] == "posthorn" {
				if code, _, talk := run(t, environ, args[1:]...); code != 0 {
					t.Errorf("%s: %s exits with %d: %s", name, f.Mend, code, talk)
				}
			} else if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
				t.Errorf("%s: %s: %v: %s", name, f.Mend, err, out)
			}
		}
		if tc.mends {
			if left := slices.DeleteFunc(examined(t, environ), func(f finding) bool { return f.Check == "keys" }); left != nil {
				t.Errorf("%s: after its command there is %+v", name, left)
			}
		}
	}
}
