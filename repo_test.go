package posthorn_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/posthorn/posthorn"

// rules are the architecture: which imports a package may not have, and why. An
// entry that ends in "/" stands for everything below it. Test files are free:
// they build worlds out of parts that do not know each other.
var rules = []struct {
	pkg  string // path within the module; "" is the root
	deny []string
	but  []string
	why  string
}{
	{pkg: "", deny: []string{module + "/", "net/http", "database/sql", "os"},
		why: "the root package is the glossary: pure rules that everything speaks, so it knows nothing of the rest and does no I/O"},
	{pkg: "webhook", deny: []string{module + "/", module},
		why: "receivers import it: it must drag nothing of the service into their programs"},
	{pkg: "client", deny: []string{module + "/internal/"},
		why: "it is public: it knows the API as users do, not the service's insides"},
	{pkg: "internal/store", deny: []string{module + "/internal/", "database/sql"}, but: []string{module + "/internal/share"},
		why: "the contract is for every store and names no engine"},
	{pkg: "internal/store/sqlite", deny: []string{module + "/internal/"}, but: []string{module + "/internal/store"},
		why: "a store keeps rows; what they mean is decided in the root package"},
	{pkg: "internal/clock", deny: []string{module + "/", module, "net/http", "database/sql"},
		why: "what time it is does not depend on what the service does"},
	{pkg: "internal/store/postgres", deny: []string{module + "/internal/"}, but: []string{module + "/internal/store", module + "/internal/clock"},
		why: "a store keeps rows; what they mean is decided in the root package, and it shares no SQL with the other one"},
	{pkg: "internal/store/postgres/ill", deny: []string{module + "/internal/", module}, but: []string{module + "/internal/store/postgres/pgtest"},
		why: "it hears what passes between a node and the server: what it shared with the store it could not show to be wrong"},
	{pkg: "internal/terminal", deny: []string{module + "/", module, "net/http", "os"},
		why: "it says what of a text may be shown; who prints it does not matter"},
	{pkg: "internal/renew", deny: []string{module + "/internal/", "net/http", "database/sql"},
		why: "a file is taken or not by what it holds; who uses it does not matter"},
	{pkg: "internal/share", deny: []string{module + "/", module, "net/http", "database/sql"},
		why: "what a tenant may take is decided without knowing of what"},
	{pkg: "internal/lane", deny: []string{"net/http", "database/sql", module + "/internal/"}, but: []string{module + "/internal/store", module + "/internal/share"},
		why: "the engine decides when; how to send and how to store are behind narrow interfaces, which is what lets days pass in milliseconds in its tests"},
	{pkg: "internal/send", deny: []string{module + "/internal/", "database/sql"}, but: []string{module + "/internal/share"},
		why: "one attempt knows no store and never retries: it returns a value"},
	{pkg: "internal/publish", deny: []string{module + "/internal/", "net/http", "database/sql"}, but: []string{module + "/internal/store", module + "/internal/share", module + "/internal/catalog", module + "/internal/filter"},
		why: "events come in by HTTP today and from an outbox tomorrow; accepting them is the same"},
	{pkg: "internal/filter", deny: []string{module + "/internal/", module, "net/http", "database/sql"},
		why: "an expression over a text and a JSON object: who asks, and for what, is not its matter"},
	{pkg: "internal/replay", deny: []string{module + "/internal/", "net/http", "database/sql"}, but: []string{module + "/internal/store"},
		why: "a replay hands rows from a store to the lanes; which ones they are does not matter to it"},
	{pkg: "internal/access", deny: []string{module + "/internal/", "database/sql"}, but: []string{module + "/internal/store", module + "/internal/share"},
		why: "who may do what does not depend on how requests come in or rows are kept"},
	{pkg: "internal/hell", deny: []string{module + "/internal/"},
		why: "the tests of every layer send to these receivers, so it knows none of them"},
	{pkg: "internal/idp", deny: []string{module + "/", "github.com/go-jose/", "github.com/coreos/"},
		why: "it makes the tokens that others check: what it shares with them it cannot show to be wrong"},
	{pkg: "internal/catalog", deny: []string{module + "/internal/"}, why: "event types are data"},
	{pkg: "internal/secretbox", deny: []string{module + "/internal/", module}, why: "small enough to be read in one sitting by whoever doubts it"},
	{pkg: "internal/web", deny: []string{module + "/internal/"}, but: []string{module + "/internal/share"}, why: "shared HTTP manners know no routes"},
	{pkg: "internal/api", deny: []string{module + "/internal/lane", module + "/internal/send", module + "/internal/store/", module + "/internal/app", module + "/internal/cli", "database/sql"},
		why: "the API sees narrow interfaces; only app knows concrete types"},
	{pkg: "internal/config", deny: []string{module + "/internal/"}, but: []string{module + "/internal/secretbox"},
		why: "settings are values; whoever needs them imports config, never the reverse (secretbox only says whether keys are well formed)"},
	{pkg: "internal/verdict", deny: []string{module + "/internal/", module},
		why: "a request is judged by what its receiver has: the headers, the body, the secrets"},
	{pkg: "internal/check", deny: []string{module + "/internal/", module},
		why: "it knows receivers as the internet does; what it sends must not depend on the service's own code but the signature"},
	{pkg: "internal/curl", deny: []string{module + "/", "net/http", "os", "os/exec"},
		why: "it makes a text of a request: it sends nothing, runs nothing and reads no file"},
	{pkg: "examples/receiver", deny: []string{module + "/internal/", module},
		why: "partners copy it: it has what they have"},
	{pkg: "internal/app", deny: []string{module + "/internal/cli"}, why: "commands start the service, not the reverse"},
}

func TestImportsPointOneWay(t *testing.T) {
	pkgs := productImports(t)
	for _, r := range rules {
		imports, ok := pkgs[r.pkg]
		if !ok {
			t.Errorf("the rule for %q names a package that does not exist", r.pkg)
			continue
		}
		for _, imp := range imports {
			if matches(r.deny, imp) && !matches(r.but, imp) {
				t.Errorf("%s imports %s.\n\tIt may not: %s.", path.Join(module, r.pkg), imp, r.why)
			}
		}
	}
	for pkg, imports := range pkgs {
		for _, tests := range []string{"internal/hell", "internal/idp", "internal/store/postgres/ill"} {
			if slices.Contains(imports, module+"/"+tests) {
				t.Errorf("%s imports %s.\n\tIt is for tests.", pkg, tests)
			}
		}
		if pkg == "internal/app" || strings.HasPrefix(pkg, "internal/store/") || strings.HasPrefix(pkg, "cmd/") {
			continue
		}
		for _, imp := range imports {
			if imp == module+"/internal/store/sqlite" || imp == module+"/internal/store/postgres" {
				t.Errorf("%s imports %s.\n\tOnly app knows concrete types: everything else must run on either store.", pkg, imp)
			}
		}
	}
}

func matches(list []string, imp string) bool {
	return slices.ContainsFunc(list, func(s string) bool {
		return imp == s || strings.HasSuffix(s, "/") && strings.HasPrefix(imp, s)
	})
}

func TestEveryPackageIsDocumentedOnce(t *testing.T) {
	docs := map[string][]string{}
	eachGoFile(t, func(file string, f *ast.File) {
		dir := path.Dir(file)
		if _, ok := docs[dir]; !ok {
			docs[dir] = nil
		}
		if f.Doc != nil && !strings.HasSuffix(file, "_test.go") {
			docs[dir] = append(docs[dir], file)
		}
	})
	for dir, files := range docs {
		if len(files) != 1 && hasProductCode(t, dir) {
			t.Errorf("package in %s has %d package comments %v, want one", dir, len(files), files)
		}
	}
}

func TestTestsDoNotSleep(t *testing.T) {
	eachGoFile(t, func(file string, f *ast.File) {
		if !strings.HasSuffix(file, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == "time" && !strings.Contains(readFile(t, file), "testing/synctest") {
					t.Errorf("%s sleeps. Wait for a condition, or let virtual time pass in a synctest bubble.", file)
				}
			}
			return true
		})
	})
}

func TestTimeReachesSQLAsAParameter(t *testing.T) {
	walk(t, func(file string) {
		if !strings.HasPrefix(file, "internal/store/") || strings.HasSuffix(file, ".md") {
			return
		}
		text := strings.ToLower(readFile(t, file))
		for _, bad := range []string{"current_timestamp", "datetime('now", "unixepoch('now", "strftime('%s','now", " now()"} {
			if strings.Contains(text, bad) {
				t.Errorf("%s uses %q. Time enters SQL as a parameter, or virtual time and clock tests lie.", file, bad)
			}
		}
	})
}

var testName = regexp.MustCompile("`(?:[a-z]+\\.)?((?:Test|Fuzz)[A-Za-z0-9_]+)`")

func TestProofsNameTestsThatExist(t *testing.T) {
	defined := map[string]bool{}
	eachGoFile(t, func(file string, f *ast.File) {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && strings.HasSuffix(file, "_test.go") {
				defined[fn.Name.Name] = true
			}
		}
	})
	named := 0
	walk(t, func(file string) {
		if file != "SECURITY.md" && !strings.HasPrefix(file, "docs/proofs/") {
			return
		}
		for _, m := range testName.FindAllStringSubmatch(readFile(t, file), -1) {
			if named++; !defined[m[1]] {
				t.Errorf("%s names %s, which is no test: a promise without its proof", file, m[1])
			}
		}
	})
	if named < 50 {
		t.Errorf("%d tests are named as proofs; is this looking in the right place?", named)
	}
}

func TestGoModHasNoReplace(t *testing.T) {
	if strings.Contains(readFile(t, "go.mod"), "replace") {
		t.Error("go.mod has a replace: `go install …@version` would fail for users")
	}
}

// productImports maps each package's path within the module to what its
// non-test files import.
func productImports(t *testing.T) map[string][]string {
	pkgs := map[string][]string{}
	eachGoFile(t, func(file string, f *ast.File) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		dir := strings.TrimPrefix(path.Dir(file), ".")
		for _, imp := range f.Imports {
			pkgs[dir] = append(pkgs[dir], strings.Trim(imp.Path.Value, `"`))
		}
	})
	return pkgs
}

func eachGoFile(t *testing.T, visit func(file string, f *ast.File)) {
	walk(t, func(file string) {
		if !strings.HasSuffix(file, ".go") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		visit(file, f)
	})
}

func walk(t *testing.T, visit func(file string)) {
	t.Helper()
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasPrefix(d.Name(), ".") && file != "." || d.Name() == "testdata" || d.Name() == "tools"):
			return fs.SkipDir
		case !d.IsDir():
			visit(filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func hasProductCode(t *testing.T, dir string) bool {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(f string) bool { return !strings.HasSuffix(f, "_test.go") })
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
