package api

import (
	"slices"
	"strings"
	"testing"
)

// What If-Match names is compared as RFC 9110, 13.1.1, says: strongly, and byte by
// byte. What can never match is refused with the reason.
func TestIfMatchIsComparedStrongly(t *testing.T) {
	const changed, weak, bare, foreign, empty = "changed in the meantime. Get", "a weak ETag", "without its quotation marks", "no ETag of this service", "If-Match is empty"
	w := newWorld(t)
	for _, c := range []struct {
		values []string
		says   []string // none: it matches version 2
	}{
		{[]string{`"2"`}, nil},
		{[]string{`*`}, nil},
		{[]string{` "7" , "2"`}, nil},
		{[]string{`"7"`, `"2"`}, nil},
		{[]string{`W/"2", "2"`}, nil},
		{[]string{`,,"2",`}, nil},
		{[]string{`"a,b","2"`}, nil},
		{[]string{`"1"`}, []string{changed}},
		{[]string{`"1","3"`}, []string{changed}},
		{[]string{`W/"2"`}, []string{weak, "gzip", "without W/"}},
		{[]string{`w/"2"`}, []string{weak}},
		{[]string{`W/"2"`, `W/"3"`}, []string{weak}},
		{[]string{`W/"2",2`}, []string{weak, bare}},
		{[]string{`"1", W/"2"`}, []string{changed, weak}},
		{[]string{`2`}, []string{bare}},
		{[]string{`'2'`}, []string{bare}},
		{[]string{`2, 3`}, []string{bare}},
		{[]string{`"2-gzip"`}, []string{foreign, "gzip"}},
		{[]string{`"02"`}, []string{foreign}},
		{[]string{`"+2"`}, []string{foreign}},
		{[]string{`""2""`}, []string{foreign}},
		{[]string{`"2`}, []string{foreign}},
		{[]string{`"1,"2",3"`}, []string{foreign}},
		{[]string{``}, []string{empty}},
		{[]string{`, ,`}, []string{empty}},
	} {
		what := strings.Join(c.values, " and ")
		for _, to := range []struct{ method, path, body string }{
			{"PATCH", "", `{"description":"third"}`}, {"DELETE", "", ""}, {"PATCH", "/settings", `{"ordered":false}`},
		} {
			id := w.endpoint("acme", anEndpoint())
			w.do("acme", "PATCH", "/endpoints/"+id, `{"description":"second"}`).want(200)
			w.do("acme", "PATCH", "/endpoints/"+id+"/settings", `{"ordered":true}`).want(200)
			call := w.as("acme", to.method, "/endpoints/"+id+to.path, to.body)
			call.request.Header["If-Match"] = c.values
			got := call.do()
			if matches := got.status < 300; matches != (c.says == nil) || !matches && got.status != 412 {
				t.Errorf("%s %s with If-Match %s: %d %s", to.method, to.path, what, got.status, got.body)
				continue
			}
			for _, text := range []string{changed, weak, bare, foreign, empty} {
				if strings.Contains(got.body, text) != slices.Contains(c.says, text) {
					t.Errorf("%s %s with If-Match %s, %q: %s", to.method, to.path, what, text, got.body)
				}
			}
			for _, text := range c.says {
				got.says(text)
			}
			if c.says != nil {
				w.do("acme", "GET", "/endpoints/"+id+to.path, "").want(200).hasHeader("ETag", `"2"`)
			}
		}
	}
}
