package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/posthorn/posthorn/internal/proof"
	"github.com/posthorn/posthorn/internal/store/postgres/ill"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/internal/tally"
)

// formerCommit is the version that this one must serve beside: the last commit
// before PostgreSQL's schema got a second version. A release moves it to the
// release before.
const formerCommit = "d9f60a4ef4c87fb1b65cbb4f49645dcf80bfcb49"

const besideFormer = "a node of the former version and nodes of this one serve one database"

// errNoHistory: the source is an archive, or a clone that is not deep enough.
var errNoHistory = errors.New("the source has no history that holds it")

// buildFormer builds the former version from the repository's own history.
func buildFormer(ctx context.Context, dir string) (string, error) {
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(ctx, "git", args...)
		// An index of our own: nothing of the repository is touched.
		cmd.Env = append(os.Environ(), "GIT_INDEX_FILE="+filepath.Join(dir, "index"))
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			err = fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
		}
		return strings.TrimSpace(string(out)), err
	}
	root, err := git("rev-parse", "--show-toplevel")
	if err == nil {
		_, err = git("cat-file", "-e", formerCommit+"^{commit}")
	}
	if err != nil {
		return "", fmt.Errorf("%w (%w)", errNoHistory, err)
	}
	source := filepath.Join(dir, "source")
	if _, err := git("-C", root, "read-tree", formerCommit); err != nil {
		return "", err
	}
	if _, err := git("-C", root, "checkout-index", "--all", "--prefix="+source+"/"); err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "former")
	build := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/posthorn") // as proof.Build, so that the cache has all but our own
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the former version: %w\n%s", err, out)
	}
	return binary, nil
}

// mixed is a world whose node 0 is of the former version.
type mixed struct {
	*world
	raw   *pgx.Conn
	began time.Time
	ids   [tenants][]string // endpoints
	round int
}

// newMixed has the former version make the database and the others join it. The run
// may take so long; building does not count.
func newMixed(t *testing.T, limit time.Duration) *mixed {
	t.Helper()
	former, err := buildFormer(t.Context(), t.TempDir())
	if errors.Is(err, errNoHistory) {
		t.Skipf("no run beside the former version %.7s: %v", formerCommit, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, fmt.Errorf("the run took longer than %s", limit))
	t.Cleanup(cancel)
	m := &mixed{began: time.Now(), world: newWorldOf(ctx, t, pgtest.ThrowAway(t), "", []string{former, binary, binary})}
	m.former = 0
	m.takes = 50 * time.Millisecond // so that some are under way whenever something happens
	if m.raw, err = pgx.Connect(ctx, m.db.URL()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.raw.Close(context.WithoutCancel(ctx)) })
	for n := range tenants {
		var list []proof.Endpoint
		m.call(1, n, http.MethodGet, "/endpoints", "", &list)
		for _, e := range list {
			m.ids[n] = append(m.ids[n], e.ID)
		}
		if len(m.ids[n]) != int(targets) {
			t.Fatalf("%d endpoints, want %d", len(m.ids[n]), targets)
		}
	}
	return m
}

func (m *mixed) call(node, tenant int, method, path, body string, data any) {
	m.t.Helper()
	var b []byte
	if body != "" {
		b = []byte(body)
	}
	if err := m.patient(node, tenant).Call(m.ctx, method, path, b, data); err != nil {
		m.t.Fatalf("node %d: %v", node, err)
	}
}

// outdo has a node of the next version write a member into all settings.
func (m *mixed) outdo() {
	m.t.Helper()
	_, err := m.raw.Exec(m.ctx, `UPDATE posthorn.endpoints SET settings = (settings::jsonb || '{"mood":{"a":[1.50,null]},"burst":12345678901234567890}')::text`)
	if err != nil {
		m.t.Fatal(err)
	}
}

// edit changes settings and endpoints through the nodes, which must be well, and
// holds every node to seeing it. Through nodes of this version the members of the
// next one are kept; the former one was not made for that.
func (m *mixed) edit() {
	m.t.Helper()
	m.outdo()
	for tenant := range tenants {
		for i, id := range m.ids[tenant] {
			m.round++
			writer := (i + tenant) % 3
			timeout := 10 + m.round%20
			m.call(writer, tenant, http.MethodPatch, "/endpoints/"+id+"/settings", fmt.Sprintf(`{"timeout_seconds":%d}`, timeout), nil)
			for reader := range m.nodes {
				var got struct {
					Timeout int  `json:"timeout_seconds"`
					Ordered bool `json:"ordered"`
				}
				m.call(reader, tenant, http.MethodGet, "/endpoints/"+id+"/settings", "", &got)
				if got.Timeout != timeout {
					m.t.Errorf("node %d shows a timeout of %d after node %d wrote %d", reader, got.Timeout, writer, timeout)
				}
			}
			var text string
			if err := m.raw.QueryRow(m.ctx, `SELECT settings FROM posthorn.endpoints WHERE ref = $1`, id).Scan(&text); err != nil {
				m.t.Fatal(err)
			}
			if writer != 0 && (!strings.Contains(text, `"mood"`) || !strings.Contains(text, "1.50") || !strings.Contains(text, "12345678901234567890")) {
				m.t.Errorf("node %d, of this version, wrote %s", writer, text)
			}
		}
		// Made, changed and deleted by different nodes. It gets none of the load.
		made, err := m.patient(0, tenant).CreateEndpoint(m.ctx, fmt.Sprintf("http://127.0.0.1:9/%d", m.round), "active", "webhooks.*")
		if err != nil {
			m.t.Fatal(err)
		}
		m.call(1, tenant, http.MethodPatch, "/endpoints/"+made.ID, `{"description":"of the new one"}`, nil)
		var got struct {
			Description string `json:"description"`
		}
		m.call(0, tenant, http.MethodGet, "/endpoints/"+made.ID, "", &got)
		if got.Description != "of the new one" {
			m.t.Errorf("the former node shows %q", got.Description)
		}
		m.call(2, tenant, http.MethodDelete, "/endpoints/"+made.ID, "", nil)
	}
}

// stop ends a node as an upgrade does. Undone, it starts again.
func (m *mixed) stop(node int) (undo func()) {
	m.t.Helper()
	end := m.ledger.begin(node, "SIGTERM")
	if code, err := m.nodes[node].Stop(40 * time.Second); err != nil || code != 0 {
		m.t.Fatalf("node %d ended with %d, %v", node, code, err)
	}
	return func() {
		m.t.Helper()
		if err := m.nodes[node].Launch(); err != nil {
			m.t.Fatal(err)
		}
		m.ready(node)
		end()
	}
}

// done lets everything settle and judges it.
func (m *mixed) done(p *load) {
	m.t.Helper()
	if err := p.finish(); err != nil {
		m.t.Fatal(err)
	}
	m.edit()
	m.settle(40 * time.Second)
	s := m.judge(p)
	m.t.Logf("%s without building the former version, %d settings written", time.Since(m.began).Round(time.Second), m.round)
	if s.accepted < 500 {
		m.t.Errorf("%d events were accepted: is there load?", s.accepted)
	}
	for node, n := range m.nodes {
		log, err := n.Log()
		if err != nil {
			m.t.Fatal(err)
		}
		if bytes.Contains(log, []byte("cannot be read")) {
			m.t.Errorf("node %d met what it cannot read: %s", node, n.LogTail())
		}
	}
	tally.Count(m.t, besideFormer, s.deliveries)
	tally.Count(m.t, inOrder, s.inLine)
}

// TestTheFormerVersionServesBesideThisOne upgrades a cluster node by node, under
// load: each kind of node is stopped, killed and started again beside the other.
func TestTheFormerVersionServesBesideThisOne(t *testing.T) {
	t.Parallel()
	if *long {
		t.Skip("the long form stands for it")
	}
	m := newMixed(t, 2*time.Minute)
	p := m.startLoad(m.ctx, *rate)
	m.accepting(p, 100)
	m.edit()
	for _, node := range []int{0, 1} {
		restart := m.kill(node)
		m.accepting(p, 100)
		restart()
		m.edit()
		restart = m.stop(node)
		m.accepting(p, 100)
		restart()
		m.edit()
	}
	heal := m.cut(0, ill.Broken)
	m.pass(time.Second)
	heal()
	m.accepting(p, 100)
	m.done(p)
}

// TestTheFormerVersionServesBesideThisOneForLong does to both kinds of nodes what
// chance says.
func TestTheFormerVersionServesBesideThisOneForLong(t *testing.T) {
	if !*long {
		t.Skip("takes a minute: make cluster")
	}
	t.Parallel()
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 1))
	m := newMixed(t, 5*time.Minute)
	p := m.startLoad(m.ctx, *rate)
	until := time.Now().Add(35 * time.Second)
	for turn := 0; time.Now().Before(until); turn++ {
		m.accepting(p, 50+random.IntN(150))
		m.edit()
		node := turn % 3
		what := random.IntN(5)
		t.Logf("%d to node %d", what, node)
		began := time.Now()
		var undo func()
		switch what {
		case 0, 1:
			undo = m.kill(node)
			m.accepting(p, random.IntN(200))
		case 2:
			undo = m.stop(node)
			m.accepting(p, random.IntN(200))
		case 3: // past the lease: others have what it had
			undo = m.halt(node)
			m.pass(time.Until(began.Add(lease + time.Duration(1000+random.IntN(1000))*time.Millisecond)))
		case 4:
			undo = m.cut(node, [...]ill.State{ill.Silent, ill.Broken}[random.IntN(2)])
			m.pass(time.Duration(random.IntN(3000)) * time.Millisecond)
		}
		undo()
	}
	m.done(p)
}
