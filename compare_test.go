package posthorn_test

import (
	"bytes"
	"go/ast"
	"go/printer"
	"go/token"
	"path"
	"strings"
	"testing"

	"github.com/posthorn/posthorn/internal/tally"
)

// comparisons are all places where the packages that handle secrets compare bytes
// or texts with something that is not written in the source, each with the reason
// why what it takes in time tells nothing. A new one fails the test until its
// reason stands here.
//
// The test is structural, and not a measurement, because a measurement cannot fail
// here: comparing 32 bytes that differ early or late takes the same few nanoseconds
// on machines with wide registers, beside a HMAC of a microsecond. Tokens are looked
// up by their SHA-256, in a map and in an index: what such a look-up takes depends on
// the hash, which nobody can choose who does not know the token.
var comparisons = map[string]string{
	"internal/access/token.go: whole != expected":                      "both are made of the text that came in: its checksum is right or not, whatever tokens there are",
	"internal/access/token.go: text[:len(TokenPrefix)] != TokenPrefix": "every token begins so",
	"internal/access/access.go: strings.EqualFold(scheme, \"bearer\")": "the scheme's name",
	"internal/access/access.go: slices.Contains(p.Scopes, scope)":      "names of scopes",
	"internal/access/access.go: e.principal.Tenant.ID == n.Tenant":     "a tenant's number",
	"internal/access/access.go: n.Kind != store.NoticeTenant":          "a kind of notice",
	"internal/access/access.go: switch n.Kind case store.NoticeAll":    "a kind of notice",
	"internal/access/access.go: switch n.Kind case store.NoticeToken":  "a kind of notice",
	"internal/access/access.go: switch n.Kind case store.NoticeTenant": "a kind of notice",
	"internal/access/access.go: a.era == era":                          "counts changes",
	"internal/access/access.go: used != e.flushed.Load()":              "times of use",
	"internal/access/uses.go: used != e.flushed.Load()":                "times of use",
	"internal/access/jwt.go: a.era == era":                             "counts changes",
	"internal/access/jwt.go: strings.HasPrefix(text, \"eyJ\")":         "every signed JWT begins so",
	"internal/access/jwt.go: slices.Contains(audiences, a)":            "names of services, which are no secrets",
	"internal/access/jwt.go: slices.Contains(TenantScopes(), name)":    "names of scopes",
	"internal/access/jwt.go: slices.Contains(mine, name)":              "names of scopes",
	"internal/access/jwt.go: r != unicode.ReplacementChar":             "a character of a subject, which is no secret",
	"internal/access/keys.go: bytes.Equal(print, other)":               "fingerprints of public keys",
	"internal/access/provider.go: p.brought != had":                    "counts fetches",
	"internal/access/provider.go: k.KeyID != h.KeyID":                  "ids of public keys",
	"internal/access/provider.go: k.Algorithm != h.Algorithm":          "names of algorithms; a signature is compared by none of ours: it is checked with a public key",
	"internal/access/provider.go: resp.StatusCode != http.StatusOK":    "the status of a provider's answer",
	"webhook/secret.go: FormatSecret(key) != s":                        "both are made of the caller's own secret: it is written in the one right way or not",
	"webhook/verify.go: strconv.FormatInt(seconds, 10) != stamp":       "both are made of the header that came in",
	"webhook/verify.go: strings.HasPrefix(s, scheme)":                  "the name of the scheme, v1",
	"webhook/endpoint.go: slices.Contains(e.spaces, named)":            "both are made of the receiver's own secrets, before any request",
	"webhook/event.go: strings.HasPrefix(e.ID, testPrefix)":            "an id is no secret",
	"webhook/sign.go: strings.Contains(id, \".\")":                     "an id is no secret",
	"webhook/header.go: http.CanonicalHeaderKey(key) == name":          "names of headers",
	"webhook/memory.go: r.claim == Handled":                            "what is known of an id is no secret",
	"webhook/receiver.go: claim == Fresh":                              "what is known of an id is no secret",
	"webhook/receiver.go: claim == Handled":                            "what is known of an id is no secret",
	"webhook/seen.go: claim == Fresh":                                  "what is known of an id is no secret",
	"webhook/seen.go: claim == Busy":                                   "what is known of an id is no secret",
	"webhook/seen.go: known == Fresh":                                  "what is known of an id is no secret",
	"webhook/seen.go: known == Handled":                                "what is known of an id is no secret",
	"webhook/receiver.go: r.Method != http.MethodPost":                 "the method is no secret",

	"internal/access/jwt.go: posthorn.ErrorCode(err) == posthorn.Forbidden":   "kinds of faults",
	"internal/access/jwt.go: posthorn.ErrorCode(err) == posthorn.Unavailable": "kinds of faults",
}

// comparing are functions that end at the first difference.
var comparing = []string{"bytes.Equal", "bytes.Compare", "bytes.HasPrefix", "bytes.HasSuffix", "bytes.Contains", "bytes.Index",
	"strings.EqualFold", "strings.Compare", "strings.HasPrefix", "strings.HasSuffix", "strings.Contains", "strings.Index",
	"slices.Equal", "slices.Compare", "slices.Contains", "slices.Index", "reflect.DeepEqual", "cmp.Compare", "maps.Equal"}

func TestSecretsAreComparedInConstantTime(t *testing.T) {
	constant := map[string]int{}
	seen := map[string]bool{}
	eachGoFile(t, func(file string, f *ast.File) {
		dir := path.Dir(file)
		if dir != "webhook" && dir != "internal/access" && dir != "internal/secretbox" || strings.HasSuffix(file, "_test.go") {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BinaryExpr:
				if (n.Op == token.EQL || n.Op == token.NEQ) && !plainOperand(n.X) && !plainOperand(n.Y) {
					seen[file+": "+source(n)] = true
				}
			case *ast.SwitchStmt:
				if n.Tag != nil {
					for _, c := range n.Body.List {
						for _, e := range c.(*ast.CaseClause).List {
							if !plainOperand(e) {
								seen[file+": switch "+source(n.Tag)+" case "+source(e)] = true
							}
						}
					}
				}
			case *ast.CallExpr:
				name := source(n.Fun)
				for _, c := range comparing {
					if name == c {
						seen[file+": "+source(n)] = true
					}
				}
				if name == "hmac.Equal" || name == "subtle.ConstantTimeCompare" {
					constant[dir]++
				}
			}
			return true
		})
	})
	for at := range seen {
		if comparisons[at] == "" {
			t.Errorf("%s\n\tcompares what may be a secret and ends at the first difference. Use crypto/subtle, or give the reason in comparisons.", at)
		}
	}
	for at := range comparisons {
		if !seen[at] {
			t.Errorf("%s\n\tis in comparisons and no more in the source", at)
		}
	}
	for _, dir := range []string{"webhook", "internal/access"} {
		if constant[dir] == 0 {
			t.Errorf("%s compares nothing in constant time: what holds a signature against the right one?", dir)
		}
	}
	tally.Count(t, "tokens and signatures are compared in constant time", len(seen)+len(constant))
}

// plainOperand reports whether the operand is written in the source, or a length.
func plainOperand(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit:
		return true
	case *ast.ParenExpr:
		return plainOperand(e.X)
	case *ast.UnaryExpr:
		return plainOperand(e.X)
	case *ast.Ident:
		return e.Name == "nil" || e.Name == "true" || e.Name == "false"
	case *ast.CallExpr:
		name := source(e.Fun)
		return name == "len" || name == "cap" || strings.HasPrefix(name, "subtle.")
	}
	return false
}

func source(n ast.Node) string {
	var b bytes.Buffer
	_ = printer.Fprint(&b, token.NewFileSet(), n) // a tree that was parsed can be printed
	return b.String()
}
