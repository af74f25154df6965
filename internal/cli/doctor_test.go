package cli_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/cli"
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
