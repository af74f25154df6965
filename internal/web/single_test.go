package web

import (
	"net/http"
	"strings"
	"testing"
)

func TestWhatIsThereTwiceAndMayNotBe(t *testing.T) {
	for _, c := range []struct {
		h    http.Header
		want string
	}{
		{http.Header{"Content-Type": {"a"}, "Authorization": {"b"}}, ""},
		{http.Header{"Accept": {"a", "b"}, "If-Match": {"a", "b"}, "Prefer": {"a", "b"}, "Cookie": {"a", "b"}, "Ce-Id": {"a", "b"}, "X-Request-Id": {"a", "b"}}, ""},
		{http.Header{"Content-Type": {"a", "a"}}, "Content-Type is there 2 times"},
		{http.Header{"Content-Type": {"", "", ""}}, "Content-Type is there 3 times"},
		{http.Header{"Posthorn-Later": {"a", "b"}}, "Posthorn-Later is there 2 times"},
		{http.Header{"Posthorn-Tenant": {"a", "b"}, "Origin": {"a", "b"}, "Idempotency-Key": {"a", "b"}}, "Idempotency-Key is there 2 times"},
	} {
		err := CheckSingle(c.h)
		if c.want == "" {
			if err != nil {
				t.Errorf("%v: %v", c.h, err)
			}
			continue
		}
		if err == nil || ProblemOf(err).Status != 400 || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.h, err, c.want)
		}
	}
}
