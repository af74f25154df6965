package check_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/check"
	"github.com/posthorn/posthorn/webhook"
)

// servers make a receiver of a function verify, on a port that they print.
var servers = map[string]struct{ program, file, begins, ends, around string }{
	"Python": {"python3", "receiver.py", "    import base64", "Node:", `
import http.server, os

class Receiver(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        status = 204
        try:
            verify(os.environ["SECRET"], self.headers, self.rfile.read(int(self.headers["content-length"])))
        except Exception:
            status = 401
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def do_GET(self):
        self.send_error(405)

    def log_message(self, *args):
        pass

server = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
print(server.server_port, flush=True)
server.serve_forever()
`},
	"Node": {"node", "receiver.js", "    const crypto", "### In Go", `
const server = require("node:http").createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    let status = request.method === "POST" ? 204 : 405;
    try {
      if (status === 204) verify(process.env.SECRET, request.headers, Buffer.concat(chunks));
    } catch {
      status = 401;
    }
    response.writeHead(status).end();
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
`},
}

// What docs/receiving.md shows of other languages makes a good receiver.
func TestTheSnippetsOfTheDocs(t *testing.T) {
	page, err := os.ReadFile("../../docs/receiving.md")
	if err != nil {
		t.Fatal(err)
	}
	for language, s := range servers {
		t.Run(language, func(t *testing.T) {
			program, err := exec.LookPath(s.program)
			if err != nil && os.Getenv("POSTHORN_CI") != "" {
				t.Fatalf("%s is not installed", s.program)
			} else if err != nil {
				t.Skipf("SKIPPED: the snippet in %s needs %s, which is not installed", language, s.program)
			}
			_, rest, ok1 := strings.Cut(string(page), s.begins)
			snippet, _, ok2 := strings.Cut(s.begins+rest, s.ends)
			if !ok1 || !ok2 {
				t.Fatalf("docs/receiving.md shows no %s", language)
			}
			file := filepath.Join(t.TempDir(), s.file)
			code := strings.TrimPrefix(strings.ReplaceAll(snippet, "\n    ", "\n"), "    ") + s.around
			if err := os.WriteFile(file, []byte(code), 0o600); err != nil {
				t.Fatal(err)
			}
			secret := webhook.NewSecret()
			cmd := exec.CommandContext(t.Context(), program, file)
			cmd.Env = append(os.Environ(), "SECRET="+secret)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}()
			port, err := bufio.NewReader(out).ReadString('\n')
			if err != nil {
				t.Fatalf("%s does not run: %v", language, err)
			}
			target := check.Target{URL: fmt.Sprintf("http://127.0.0.1:%s/", strings.TrimSpace(port)), Secret: secret, Slowly: 100e6, Aim: 10e9}
			err = check.Run(t.Context(), target, func(f check.Finding) {
				if f.Grade != check.OK {
					t.Errorf("%+v", f)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}
