//go:build unix

package app

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/tally"
	"github.com/posthorn/posthorn/webhook"
)

// forms are the ways in which secret bytes could come out: as they are, as text
// in each usual encoding, as Go prints slices, and as the words in which a crash
// dump shows arguments.
func forms(secret []byte) map[string][]byte {
	f := map[string][]byte{
		"raw":        secret,
		"hex":        []byte(hex.EncodeToString(secret)),
		"HEX":        []byte(strings.ToUpper(hex.EncodeToString(secret))),
		"base64":     []byte(base64.RawStdEncoding.EncodeToString(secret)),
		"base64 url": []byte(base64.RawURLEncoding.EncodeToString(secret)),
		"%v":         []byte(strings.Trim(fmt.Sprint(secret[:8]), "[]")),
		"%#v":        []byte(strings.Trim(strings.TrimPrefix(fmt.Sprintf("%#v", secret[:8]), "[]byte"), "{}")),
		"quoted":     []byte(strings.Trim(fmt.Sprintf("%q", secret[:8]), `"`)),
	}
	for at := 0; at+8 <= len(secret); at += 8 {
		f[fmt.Sprint("word at ", at)] = fmt.Appendf(nil, "0x%x", binary.LittleEndian.Uint64(secret[at:]))
	}
	return f
}

// packed are the forms that a text has inside of a longer one in base64: one for
// each place where it may begin, less what its neighbours decide.
func packed(text []byte) (f [][]byte) {
	for shift := range 3 {
		b := base64.StdEncoding.EncodeToString(append(make([]byte, shift), text...))
		f = append(f, []byte(b[4*((shift+2)/3):len(b)-4]))
	}
	return f
}

// vault is what must not come out, by what it is.
type vault map[string][]byte

func (v vault) addSecret(t *testing.T, name, text string) {
	t.Helper()
	key, err := webhook.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	v.add(name, key)
	v.addText(name, strings.TrimSuffix(strings.TrimPrefix(text, "whsec_"), "="))
}

func (v vault) addText(name, text string) {
	v[name+", text"] = []byte(text)
	for i, b := range packed([]byte(text)) {
		v[fmt.Sprint(name, ", packed ", i)] = b
	}
}

func (v vault) add(name string, secret []byte) {
	for form, b := range forms(secret) {
		v[name+", "+form] = b
	}
}

// found looks for everything in b.
func (v vault) found(b []byte) (names []string) {
	for name, secret := range v {
		if bytes.Contains(b, secret) {
			names = append(names, name)
		}
	}
	return names
}

func TestTheScannerFindsWhatItLooksFor(t *testing.T) {
	key := []byte("0123456789abcdefghijklmnopqrstuv")
	v := vault{}
	v.add("key", key)
	v.addText("key", string(key))
	for _, around := range []string{"", "a", "ab"} {
		leak := base64.StdEncoding.EncodeToString([]byte(around + string(key) + around))
		if got := v.found([]byte(leak)); !strings.Contains(fmt.Sprint(got), "packed") {
			t.Errorf("inside of base64: found %v in %s", got, leak)
		}
	}
	for name, leak := range map[string]string{
		"raw": string(key), "hex": fmt.Sprintf("%x", key), "HEX": fmt.Sprintf("%X", key), "base64": base64.StdEncoding.EncodeToString(key),
		"%v": fmt.Sprint(key), "%#v": fmt.Sprintf("%#v", key), "quoted": fmt.Sprintf("%q", key),
		"word at 8": fmt.Sprintf("main.f({0x%x, 0x%x, ...})", binary.LittleEndian.Uint64(key), binary.LittleEndian.Uint64(key[8:])),
	} {
		if got := v.found([]byte("before " + leak + " after")); !strings.Contains(fmt.Sprint(got), "key, "+name) {
			t.Errorf("%s: found %v in %q", name, got, leak)
		}
	}
}

// program is a process of its own.
type program struct {
	*exec.Cmd
	out, log *proof.Output
}

func run(t *testing.T, umask string, env []string, args ...string) *program {
	t.Helper()
	p := &program{Cmd: exec.Command(os.Args[0]), out: &proof.Output{}, log: &proof.Output{}}
	p.Env = append([]string{childArgs + "=" + strings.Join(args, "\n"), childUmask + "=" + umask, "GOTRACEBACK=system"}, env...)
	p.Stdout, p.Stderr = p.out, p.log
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Process.Kill(); p.Wait() })
	return p
}

func (p *program) end(t *testing.T, by syscall.Signal, want int) {
	t.Helper()
	if err := p.Process.Signal(by); err != nil {
		t.Fatal(err)
	}
	p.Wait()
	if got := p.ProcessState.ExitCode(); got != want {
		t.Fatalf("%v ended it with %d, want %d:\n%s", by, got, want, p.log)
	}
}

// rude answers in all the ways that make a service talk, and says back what it got.
func rude(t *testing.T) (server *httptest.Server, hanging chan struct{}) {
	hanging = make(chan struct{}, 1000)
	server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		for name, values := range r.Header { // a receiver that echoes signatures and payloads
			w.Header()["X-Echo-"+name] = values
		}
		switch {
		case strings.Contains(r.URL.Path, "/500"):
			w.WriteHeader(500)
			w.Write(body)
		case strings.Contains(r.URL.Path, "/410"):
			w.WriteHeader(410)
		case strings.Contains(r.URL.Path, "/redirect"):
			w.Header().Set("Location", "http://127.0.0.1/"+string(body))
			w.WriteHeader(302)
		case strings.Contains(r.URL.Path, "/reset"):
			c, _, err := http.NewResponseController(w).Hijack()
			if err == nil {
				c.(*net.TCPConn).SetLinger(0)
				c.Close()
			}
		case strings.Contains(r.URL.Path, "/hang"):
			hanging <- struct{}{}
			<-r.Context().Done()
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server, hanging
}

const (
	payloadMark = "p4yl0ad-m4rk"
	pathMark    = "p4th-m4rk"
	queryMark   = "qu3ry-m4rk"
)

// TestNothingSecretComesOut has the real program work a day with everything that
// makes it talk, kills it with a dump of all its goroutines, and looks through all
// bytes that it left: what it printed, answered and stored.
func TestNothingSecretComesOut(t *testing.T) {
	dir := t.TempDir()
	store := "sqlite:" + filepath.Join(dir, "posthorn.db")
	receiver, hanging := rude(t)
	v := vault{}
	old, fresh := secretbox.Generate("k1"), secretbox.Generate("k2")
	for _, spec := range []string{old, fresh} {
		id, text, _ := strings.Cut(spec, ":")
		key, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		v.add("encryption key "+id, key)
	}
	listen, ops := freeAddress(t), freeAddress(t)
	s := &service{base: "http://" + listen, ops: "http://" + ops}
	env := func(keys string) []string {
		return []string{"POSTHORN_STORE=" + store, "POSTHORN_ENCRYPTION_KEYS=" + keys, "POSTHORN_LISTEN=" + listen, "POSTHORN_OPS_LISTEN=" + ops,
			"POSTHORN_ALLOW_HTTP=true", "POSTHORN_ALLOW_PRIVATE=127.0.0.0/8", "POSTHORN_LOG_LEVEL=debug", "POSTHORN_TOKEN_RATE=10000", "POSTHORN_SHUTDOWN_DELAY=0", "POSTHORN_DRAIN_TIMEOUT=1s"}
	}
	ready := func(p *program) {
		t.Helper()
		eventually(t, "readiness", func() bool {
			resp, err := http.Get(s.base + "/readyz")
			if err == nil {
				resp.Body.Close()
			}
			return err == nil && resp.StatusCode == 200
		})
	}
	var printed, told []byte // by the program; by its answers that are for everybody

	p := run(t, "0", env(old), "serve")
	ready(p)
	admin := run(t, "0", env(old), "token", "create", "--platform", "--scope", "admin,webhooks:read,webhooks:write,events:publish", "--store", store)
	admin.Wait()
	root := strings.TrimSpace(admin.out.String())
	v.addText("the platform's token", strings.TrimPrefix(root, access.TokenPrefix))
	printed = append(printed, admin.log.String()...)

	token := s.aDay(t, root, receiver.URL, v)
	<-hanging
	told = append(told, s.publicAnswers(t, root)...)
	slow := s.dial(t) // a request in the midst of its body, its token on some stack
	io.WriteString(slow, head(token, "POST", "/events", "Content-Type: application/json\r\nContent-Length: 1000\r\n")+`{"type":"`+payloadMark)
	eventually(t, "the slow request", func() bool {
		_, figures := get(t, s.ops+"/metrics")
		return !strings.Contains(figures, "posthorn_connections_open 0\n")
	})
	p.end(t, syscall.SIGQUIT, 2)
	printed = append(append(printed, p.out.String()...), p.log.String()...)
	if !strings.Contains(p.log.String(), "SIGQUIT: quit") || strings.Count(p.log.String(), "\ngoroutine ") < 10 {
		t.Errorf("there is no dump of the goroutines:\n%.2000s", p.log)
	}
	left := v.scanFiles(t, dir, "after a crash") // with its -wal, -shm and .lock

	// The next day: the crash is recovered from, the keys change, an orderly end.
	p = run(t, "0", env(fresh+","+old), "serve")
	ready(p)
	rotate := run(t, "0", env(fresh+","+old), "key", "rotate")
	rotate.Wait()
	printed = append(append(printed, rotate.out.String()...), rotate.log.String()...)
	if !strings.Contains(rotate.log.String(), "Sealed anew") {
		t.Errorf("the rotation: %s", rotate.log)
	}
	check := run(t, "0", env(fresh+","+old), "config", "check", "-o", "json")
	check.Wait()
	printed = append(append(printed, check.out.String()...), check.log.String()...)
	told = append(told, s.publicAnswers(t, root)...)
	p.end(t, syscall.SIGTERM, 0)
	printed = append(append(printed, p.out.String()...), p.log.String()...)
	left += v.scanFiles(t, dir, "after an orderly end")

	for name, b := range map[string][]byte{"what was printed": printed, "what everybody is answered": told} {
		if names := v.found(b); len(names) > 0 {
			t.Errorf("%s shows %v", name, names)
		}
		for _, mark := range []string{payloadMark, pathMark, queryMark} {
			if i := bytes.Index(b, []byte(mark)); i >= 0 {
				t.Errorf("%s shows %s: …%s…", name, mark, b[max(0, i-200):min(len(b), i+50)])
			}
		}
	}
	t.Logf("%d forms of secrets looked for in %d bytes printed, %d answered, %d stored", len(v), len(printed), len(told), left)
	tally.Count(t, "no form of a secret is in logs, dumps, metrics, documents or the store's files", len(v)*4)
}

// aDay does everything that handles secrets or fails, and puts the secrets into v.
// It returns the tenant's token.
func (s *service) aDay(t *testing.T, root, receiver string, v vault) (token string) {
	t.Helper()
	want := func(status, wanted int, body string) {
		t.Helper()
		if status != wanted {
			t.Fatalf("%d %s, want %d", status, body, wanted)
		}
	}
	keep := func(name, text string) string {
		if text == "" {
			t.Fatalf("%s: nothing to keep", name)
		}
		v.addText(name, strings.TrimPrefix(text, access.TokenPrefix))
		return text
	}
	status, _, body := s.request(t, root, "POST", "/tenants", `{"name":"acme"}`, "")
	want(status, 201, body)
	for i := range 2 {
		status, _, body = s.request(t, root, "POST", "/tokens", `{"tenant":"acme","name":"ci","scopes":["webhooks:read","webhooks:write","events:publish"]}`, fmt.Sprint("token-", i))
		want(status, 201, body)
		token = keep(fmt.Sprint("a tenant's token ", i), between(body, `"token":"`, `"`))
		again, _, repeated := s.request(t, root, "POST", "/tokens", `{"tenant":"acme","name":"ci","scopes":["webhooks:read","webhooks:write","events:publish"]}`, fmt.Sprint("token-", i))
		if again != 201 || repeated != body {
			t.Errorf("the repeated answer is %d %s", again, repeated)
		}
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	first := ""
	for i, at := range []string{receiver + "/ok", receiver + "/500", receiver + "/410", receiver + "/redirect", receiver + "/reset", receiver + "/hang",
		"http://" + closed.Addr().String() + "/refused", "http://no-such-host.example.com/dns"} {
		status, _, body := s.request(t, token, "POST", "/endpoints", `{"url":"`+at+"/"+pathMark+"?k="+queryMark+`","events":["cases.*","webhooks.*"]}`, fmt.Sprint("endpoint-", i))
		want(status, 201, body)
		v.addSecret(t, fmt.Sprint("secret of endpoint ", i), between(body, `"secret":"`, `"`))
		if first == "" {
			first = between(body, `"id":"`, `"`)
		}
	}
	s.rotateAndSet(t, token, first, v)
	event := `{"type":"cases.updated","data":{"name":"` + payloadMark + `"}}`
	for range 3 {
		status, _, body = s.request(t, token, "POST", "/events", event, "")
		want(status, 202, body)
	}
	status, _, body = s.request(t, token, "POST", "/events/batch", `{"events":[`+event+`,`+event+`]}`, "batch")
	want(status, 202, body)
	// What people do by mistake: tokens in urls, secrets in bodies, bad everything.
	stranger, _ := access.NewToken()
	keep("a stranger's token", stranger)
	for _, r := range []struct{ token, method, path, body string }{
		{stranger, "GET", "/endpoints", ""},
		{token, "GET", "/endpoints?token=" + token + "&q=" + queryMark, ""},
		{token, "GET", "/endpoints/" + token, ""},
		{token, "GET", "/" + pathMark + "/" + token, ""},
		{token, "POST", "/endpoints", `{"url":"https://user:` + payloadMark + `@e.example.com/` + pathMark + `","events":["` + token + `"]}`},
		{token, "POST", "/endpoints", `{"secret":"` + payloadMark + `","url":7,"` + token + `":1}`},
		{token, "POST", "/events", `{"type":"` + payloadMark + `","data":{"` + token + `":1}}`},
		{token, "POST", "/events", `{"type":"cases.updated","data":{"a":"` + payloadMark},
		{token, "POST", "/events", `{"type":"cases.updated","data":{},"id":"` + token + `!"}`},
		{token, payloadMark, "/events", ""},
	} {
		if status, _, body := s.request(t, r.token, r.method, r.path, r.body, ""); status < 400 || status >= 500 {
			t.Errorf("%s %s: %d %s", r.method, r.path, status, body)
		}
	}
	s.exchange(t, "GET /"+token+" HTTP/1.1\r\nHost : "+token+"\r\n\r\n")
	// Until everything failed once: then it was all talked about.
	eventually(t, "an attempt for each endpoint", func() bool {
		_, figures := get(t, s.ops+"/metrics")
		for _, class := range []string{"ok", "http_status", "redirect", "reset", "connect"} {
			if strings.Contains(figures, `posthorn_attempts_total{class="`+class+"\"} 0\n") {
				return false
			}
		}
		return true
	})
	status, _, body = s.request(t, token, "GET", "/deliveries?limit=250", "", "")
	want(status, 200, body)
	if names := v.found([]byte(body)); len(names) > 0 {
		t.Errorf("the delivery log shows %v", names)
	}
	status, _, body = s.request(t, token, "GET", "/endpoints", "", "")
	want(status, 200, body)
	if names := v.found([]byte(body)); len(names) > 0 {
		t.Errorf("the list of endpoints shows %v", names)
	}
	return token
}

// rotateAndSet gives an endpoint new secrets and headers, rightly and by mistake,
// and puts what must not come out into v.
func (s *service) rotateAndSet(t *testing.T, token, id string, v vault) {
	t.Helper()
	path := "/endpoints/" + id
	for i, body := range []string{`{}`, `{"secret":"` + webhook.NewSecret() + `"}`, `{}`} {
		for range 2 { // the second answer is the remembered one
			status, _, answer := s.request(t, token, "POST", path+"/secret/rotate", body, fmt.Sprint("rotate-", i))
			if status != 200 {
				t.Fatalf("%d %s", status, answer)
			}
			v.addSecret(t, fmt.Sprint("rotated secret ", i), between(answer, `"secret":"`, `"`))
		}
	}
	if status, _, answer := s.request(t, token, "GET", path+"/secret", "", ""); status != 200 || len(v.found([]byte(answer))) == 0 {
		t.Errorf("what is revealed is no secret that is looked for: %d %s", status, answer)
	}
	for i, name := range []string{"Authorization", "X-Api-Key", "authorization"} {
		value := "h34d3r-" + rand.Text()
		v.add(fmt.Sprint("header value ", i), []byte(value))
		v.addText(fmt.Sprint("header value ", i), value)
		status, _, answer := s.request(t, token, "PATCH", path+"/settings", `{"headers":{"`+name+`":"`+value+`"}}`, "")
		if status != 200 || len(v.found([]byte(answer))) > 0 {
			t.Errorf("%d %s", status, answer)
		}
		for _, wrong := range []string{
			`{"headers":{"Host":"` + value + `"}}`, `{"headers":{"X-A":"` + value + `\n"}}`, `{"headers":{"X-A":["` + value + `"]}}`, `{"headers":"` + value + `"}`,
			`{"filter":"` + value + `"}`, `{"secret":"` + value + `"}`, `{"headers":{"X-A":"` + value,
		} {
			status, _, answer := s.request(t, token, "PATCH", path+"/settings", wrong, "")
			if status < 400 || status > 422 {
				t.Errorf("%s: %d %s", wrong, status, answer)
			}
		}
	}
	_, _, answer := s.request(t, token, "GET", path+"/settings", "", "")
	if names := v.found([]byte(answer)); len(names) > 0 || !strings.Contains(answer, `"X-Api-Key":null`) {
		t.Errorf("the settings show %v: %s", names, answer)
	}
}

// publicAnswers are those that need no token, the metrics, and lists of the
// platform.
func (s *service) publicAnswers(t *testing.T, root string) []byte {
	t.Helper()
	var all []byte
	for _, url := range []string{s.base + "/", s.base + "/docs", s.base + "/openapi.yaml", s.base + "/healthz", s.base + "/readyz", s.base + "/none", s.ops + "/metrics", s.ops + "/healthz"} {
		_, body := get(t, url)
		all = append(all, body...)
	}
	for _, path := range []string{"/tokens", "/tenants", "/event-types"} {
		r, err := http.NewRequest("GET", s.base+"/v2.3/webhooks"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+root)
		r.Header.Set("Posthorn-Tenant", "acme")
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		all = append(all, body...)
	}
	return all
}

// scanFiles looks through all bytes of a folder, where payloads are expected and
// secrets are not, and checks that nobody else may read them.
func (v vault) scanFiles(t *testing.T, dir, when string) (size int) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	payloads := false
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		size += len(b)
		payloads = payloads || bytes.Contains(b, []byte(payloadMark))
		if names := v.found(b); len(names) > 0 {
			t.Errorf("%s, %s holds %v", when, e.Name(), names)
		}
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s, %s has the mode %v", when, e.Name(), info.Mode())
		}
	}
	if !payloads {
		t.Errorf("%s: no payload is in %v: these are not the store's files", when, entries)
	}
	return size
}

// TestFilesBelongToTheirOwner runs serve and dev under umasks that forbid nothing
// and the usual amount: what they make is the owner's alone.
func TestFilesBelongToTheirOwner(t *testing.T) {
	checked := 0
	for _, umask := range []string{"0", "022", "077"} {
		top := t.TempDir()
		dir := filepath.Join(top, "dev")
		dev := run(t, umask, nil, "dev", "--dir", dir, "--listen", "127.0.0.1:0", "--ops-listen", "off", "--samples", "50ms")
		eventually(t, "a verified delivery", func() bool { return strings.Contains(dev.out.String(), "signature valid") })
		path := filepath.Join(top, "serve.db")
		serve := run(t, umask, []string{"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")}, "serve", "--listen", "127.0.0.1:0", "--ops-listen", "off", "--store", "sqlite:"+path)
		eventually(t, "the service", func() bool { return strings.Contains(serve.log.String(), `"msg":"serving"`) })
		want := map[string]os.FileMode{"dev": os.ModeDir | 0o700}
		for _, name := range []string{"dev/posthorn.db", "dev/token", "dev/encryption-keys", "serve.db"} {
			want[name] = 0o600
		}
		for _, db := range []string{"dev/posthorn.db", "serve.db"} {
			for _, suffix := range []string{"-wal", "-shm", ".lock"} {
				want[db+suffix] = 0o600
			}
		}
		err := filepath.Walk(top, func(p string, info os.FileInfo, err error) error {
			if err != nil || p == top {
				return err
			}
			name, _ := filepath.Rel(top, p)
			mode, known := want[filepath.ToSlash(name)]
			if !known || info.Mode() != mode {
				t.Errorf("umask %s: %s has the mode %v, want %v (known: %v)", umask, name, info.Mode(), mode, known)
			}
			delete(want, filepath.ToSlash(name))
			checked++
			return nil
		})
		if err != nil || len(want) > 0 {
			t.Errorf("umask %s: %v is not there, %v", umask, want, err)
		}
		serve.end(t, syscall.SIGTERM, 0)
		dev.end(t, syscall.SIGINT, 0)
	}
	tally.Count(t, "all files that are made belong to their owner alone, under any umask", checked)
}
