package crash

import (
	"context"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

// buildWith builds the binary with a piece of one of its files replaced, which
// must be there once. The tree stays as it is: the compiler reads the changed
// file from elsewhere.
func buildWith(ctx context.Context, t *testing.T, file, old, changed string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("..", "..", filepath.FromSlash(file)))
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), old); n != 1 {
		t.Fatalf("%s holds %q %d times, want once: the guard has moved, and this proof must follow", file, old, n)
	}
	dir := t.TempDir()
	other := filepath.Join(dir, filepath.Base(file))
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: other}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{other: strings.Replace(string(source), old, changed, 1), filepath.Join(dir, "overlay.json"): string(overlay)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	binary := filepath.Join(dir, "posthorn")
	out, err := exec.CommandContext(ctx, "go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, "github.com/posthorn/posthorn/cmd/posthorn").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// TestPowerLossIsSeen takes the guard out of the real binary: with less than
// synchronous=FULL events must be found lost.
func TestPowerLossIsSeen(t *testing.T) {
	if !long {
		t.Skip("builds two more binaries: in the long form only. The short form of TestPowerLoss shows on its own run that it can fail")
	}
	needTracer(t)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	t.Logf("-seed %d", *seed)
	for _, level := range []string{"OFF", "NORMAL"} {
		weak := buildWith(ctx, t, "internal/store/sqlite/sqlite.go", `o.Synchronous = "FULL"`, `o.Synchronous = "`+level+`"`)
		r := record(ctx, t, weak, 400, false)
		early, answers := r.early()
		wrong, tried := r.lose(ctx, t, rand.New(rand.NewPCG(*seed, 3)), 20, 0)
		if len(early) == 0 || len(wrong) == 0 {
			t.Errorf("synchronous=%s is not noticed: %d early answers, %d faults", level, len(early), len(wrong))
			continue
		}
		t.Logf("synchronous=%s: %d of %d answers before the event was on disk; %d of %d power losses lose something: %s",
			level, len(early), answers, len(wrong), tried, wrong[0])
	}
}
