package curl_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/posthorn/posthorn/internal/curl"
)

// request is what the receiver got.
type request struct {
	uri  string
	head http.Header
	body []byte
}

// receiver collects the requests that come to it.
func receiver(t *testing.T) (url string, got func() []request) {
	t.Helper()
	arrived := make(chan request, 100)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		arrived <- request{r.RequestURI, r.Header, body}
	}))
	t.Cleanup(s.Close)
	return s.URL, func() (all []request) {
		for len(arrived) > 0 {
			all = append(all, <-arrived)
		}
		return all
	}
}

// eachShell runs a test with each POSIX shell that is installed.
func eachShell(t *testing.T, test func(t *testing.T, shell []string)) {
	needs(t, "sh", "curl")
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"bash"}, {"bash", "--posix"}, {"busybox", "sh"}, {"ksh"}, {"mksh"}, {"yash"}, {"zsh"}} {
		if _, err := exec.LookPath(shell[0]); err == nil {
			t.Run(strings.Join(shell, " "), func(t *testing.T) { test(t, shell) })
		}
	}
}

// needs skips a test where a program is missing; on a build server it fails.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			if os.Getenv("POSTHORN_CI") != "" {
				t.Fatalf("%s is needed", program)
			}
			t.Skipf("%s is needed", program)
		}
	}
}

// runs gives a command to a shell, as `posthorn event curl … | sh` does.
func runs(t *testing.T, shell []string, dir, command string) {
	t.Helper()
	c := exec.CommandContext(t.Context(), shell[0], shell[1:]...)
	c.Dir, c.Stdin = dir, strings.NewReader(command+"\n")
	if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v: %.300q\n%.1000q", err, out, command)
	}
}

// showable fails if a terminal would act on something in the text, or cut a line of it.
func showable(t *testing.T, command string) {
	t.Helper()
	if !utf8.ValidString(command) {
		t.Errorf("it is no UTF-8: %.300q", command)
	}
	if i := strings.IndexFunc(command, func(r rune) bool { return r != '\n' && !unicode.IsGraphic(r) }); i >= 0 {
		t.Errorf("a terminal would act on %q", command[i:min(len(command), i+8)])
	}
	for line := range strings.SplitSeq(command, "\n") {
		if len(line) >= 1024 {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
}

// left fails unless a directory holds what it held before.
func left(t *testing.T, dir string, want ...string) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	if !slices.Equal(names, want) {
		t.Errorf("the directory holds %q, want %q", names, want)
	}
}

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// bodies are texts that shells, curl, printf or terminals read something into.
var bodies = map[string][]byte{
	"nothing":                    {},
	"an event":                   []byte(`{"id":"evt_1","data":{"who":"it's $HOME"}}`),
	"256 KiB on one line":        []byte(`{"a":"` + strings.Repeat("x", 256<<10) + `"}`),
	"a little less than 128 KiB": bytes.Repeat([]byte("y"), 128<<10-1),
	"just 128 KiB":               bytes.Repeat([]byte("y"), 128<<10),
	"1 MiB of lines":             bytes.Repeat([]byte("  \"name\": \"value\",\n"), 1<<20/19),
	"300 KiB of quotes":          bytes.Repeat([]byte(`'`), 300<<10),
	"300 KiB of DEL":             bytes.Repeat([]byte("\x7f"), 300<<10),
	"300 KiB of U+202E":          bytes.Repeat([]byte("\u202e"), 100<<10),
	"backslashes":                []byte(`{"a":"\\\"\n\c\0101\x41\u0041\\"}` + "\x07" + `\c\`),
	"backslashes alone":          []byte(`\n\c\0101\x41\\`),
	"formats":                    []byte("%s%d%n%%" + strings.Repeat("%b", 200)),
	"each byte":                  allBytes(),
	"each byte, often":           bytes.Repeat(allBytes(), 50),
	"NUL at the end":             []byte("a\x00"),
	"a digit behind an escape":   []byte("\x1b1\x00777\x7f8"),
	"line breaks at the end":     []byte("{}\r\n\n\n"),
	"line breaks alone":          []byte("\n\n"),
	"a file's name":              []byte("@/etc/passwd"),
	"an option":                  []byte("--config /etc/passwd"),
	"ends of documents":          []byte("EOF\n'EOF'\n}\n} | cat\nPOSTHORN\n"),
	"commands":                   []byte("'; touch a; '`touch b`$(touch c)\n\"$(touch d)\n!! !e ~ * &\n"),
	"colours and titles":         []byte("{\"a\":\"\x1b[31mred\x1b]0;title\x07\"}"),
	"C1 in UTF-8":                []byte("{\"a\":\"\u009b31m\u0085\"}"),
	"C1 as bytes":                []byte("{\"a\":\"\x9b31m\x90\"}"),
	"marks of direction":         []byte("{\"a\":\"\u202eabc\u2066\u200f\u061c\"}"),
	"breaks of Unicode":          []byte("{\"a\":\"\u2028\u2029\ufeff\U000e0041\ue000\"}"),
	"tabs":                       []byte("{\n\t\"a\":\t1\n}"),
	"letters of three bytes":     []byte("x" + strings.Repeat("—é漢😀", 500)),
	"cut letters":                []byte(strings.Repeat("\xe6\xbc", 300)),
}

// Bodies of any size and of any bytes arrive as they are.
func TestBodiesArriveByteForByte(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		to, got := receiver(t)
		for name, body := range bodies {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				command, err := curl.Command{Options: "-q -sS", URL: to, Headers: [][2]string{{"Content-Type", "application/json"}}, Body: body, Wrapped: true}.Text()
				if err != nil {
					t.Fatal(err)
				}
				showable(t, command)
				if strings.HasPrefix(name, "letters") && strings.Contains(command, "%b") {
					t.Error("letters are cut, and so are escaped")
				}
				runs(t, shell, dir, command)
				all := got()
				if len(all) != 1 || !bytes.Equal(all[0].body, body) {
					t.Fatalf("%d requests, with %.300q", len(all), all)
				}
				left(t, dir)
			})
		}
	})
}

// values are those of headers, that of one sets: they arrive as one value, exactly.
var values = []string{
	"evt_01K0Z9GJ8T2N5V7W3X4Y6Z8A9B", "", "it's", `"`, `\`, `a\nb`, "$(touch a)", "`touch b`", "'; touch c; '", "${HOME}", "~", "*", "!!",
	"-o/tmp/x", "--config", "@/etc/passwd", "; X-Other: 1", "%0d%0aX-Other: 1", `\r\nX-Other: 1`, "%s%n",
	"\u202eevil", "\u009b31m", "\x9b31m", "a\tb", "\u2028X-Other: 1", "\ufeffx", "漢字", "a\u200e\u200f",
}

func TestValuesOfHeadersStayOne(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		to, got := receiver(t)
		for _, value := range values {
			t.Run(value, func(t *testing.T) {
				dir := t.TempDir()
				command, err := curl.Command{Options: "-q -sS", URL: to, Headers: [][2]string{{"X-It", value}, {"User-Agent", "a"}}, Body: []byte("{}")}.Text()
				if err != nil {
					t.Fatal(err)
				}
				showable(t, command)
				runs(t, shell, dir, command)
				all := got()
				if len(all) != 1 || !slices.Equal(all[0].head.Values("X-It"), []string{value}) {
					t.Fatalf("%d requests: %q", len(all), all)
				}
				if n := len(all[0].head); n != 5 { // the two, Accept, Content-Length, Content-Type
					t.Errorf("%d headers: %q", n, all[0].head)
				}
				left(t, dir)
			})
		}
	})
}

// What cannot be sent as it is makes no command, and the error does not repeat it.
func TestWhatNoRequestCanCarryIsRefused(t *testing.T) {
	const good = "http://localhost:3000/hooks"
	refused := map[string]curl.Command{}
	for _, value := range []string{"a\r\nX-Other: 1", "a\nX-Other: 1", "a\rX-Other: 1", "a\x00", "\x1b[31m", "\x7f", "\b", " a", "a ", "\ta"} {
		refused["the value "+value] = curl.Command{URL: good, Headers: [][2]string{{"X-It", value}}}
	}
	for _, name := range []string{"", "@file", "a b", "a:b", "a\nb", "\x1b", "é"} {
		refused["the name "+name] = curl.Command{URL: good, Headers: [][2]string{{name, "1"}}}
	}
	for _, url := range []string{"", "-o/tmp/x", "--config=/etc/passwd", "@urls.txt", "file:///etc/passwd", "gopher://localhost/", "localhost:3000/hooks", "http://",
		"http://localhost/\x1b[31m", "http://localhost/\nX", "http://localhost/ -o x", "http://localhost/\x00", "http://localhost/\x9b", "http://localhost/\x7f", " http://localhost/"} {
		refused["the URL "+url] = curl.Command{URL: url}
	}
	for name, c := range refused {
		command, err := c.Text()
		if err == nil || command != "" {
			t.Errorf("%q makes %q", name, command)
			continue
		}
		showable(t, err.Error())
	}
}

// A URL is the path that is asked for, as it is written, and one request.
func TestURLsStayOne(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		to, got := receiver(t)
		for _, path := range []string{
			"/it's", "/$(touch${IFS}a)", "/`touch${IFS}b`", "/;touch;c", "/a&b=c|d", "/{x,y}", "/[1-3]", "/a?b=*", "/!!", `/"`, "/-o/@x", "/%0d%0a", "/a/../b/./c", "/%2e%2E/x",
		} {
			t.Run(path, func(t *testing.T) {
				dir := t.TempDir()
				command, err := curl.Command{Options: "-q -sS", URL: to + path}.Text()
				if err != nil {
					t.Fatal(err)
				}
				showable(t, command)
				runs(t, shell, dir, command)
				if all := got(); len(all) != 1 || all[0].uri != path {
					t.Errorf("%d requests: %.300q", len(all), all)
				}
				left(t, dir)
			})
		}
	})
}

// A file's name is one, whatever it is called.
func TestNamesOfFilesStayOne(t *testing.T) {
	eachShell(t, func(t *testing.T, shell []string) {
		to, got := receiver(t)
		for _, name := range []string{"body.json", "it's", "-o", "@x", "$(touch a)", "`touch b`", "\x1b[31mred", "\u202egnp.nosj", "a\nb", "ends\n", "\x9b", "\u009b", "a b\tc", "漢", `"\`} {
			t.Run(name, func(t *testing.T) {
				dir := t.TempDir()
				if err := os.WriteFile(filepath.Join(dir, name), []byte(`{"name":1}`), 0o600); err != nil {
					t.Fatal(err)
				}
				command, err := curl.Command{Options: "-q -sS", URL: to, BodyFile: name}.Text()
				if err != nil {
					t.Fatal(err)
				}
				showable(t, command)
				runs(t, shell, dir, command)
				if all := got(); len(all) != 1 || string(all[0].body) != `{"name":1}` {
					t.Errorf("%d requests: %q", len(all), all)
				}
				left(t, dir, name)
			})
		}
	})
}
