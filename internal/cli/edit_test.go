package cli

import (
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestEdits(t *testing.T) {
	const data = `{"a":{"b":1,"c":[1,{"d":"x\/y"}]},"n":1152921504606846977,"é":null}`
	for _, tc := range []struct{ edit, want string }{
		{"data.a.b=2", `{"a":{"b":2,"c":[1,{"d":"x\/y"}]},"n":1152921504606846977,"é":null}`},
		{"data.a=null", `{"a":null,"n":1152921504606846977,"é":null}`},
		{"data.a.c.1.d=text", `{"a":{"b":1,"c":[1,{"d":"text"}]},"n":1152921504606846977,"é":null}`},
		{"data.a.c.2=[]", `{"a":{"b":1,"c":[1,{"d":"x\/y"},[]]},"n":1152921504606846977,"é":null}`},
		{"data.é=a=b", `{"a":{"b":1,"c":[1,{"d":"x\/y"}]},"n":1152921504606846977,"é":"a=b"}`},
		{"data.x.y.z=", `{"a":{"b":1,"c":[1,{"d":"x\/y"}]},"n":1152921504606846977,"é":null,"x":{"y":{"z":""}}}`},
	} {
		edits, err := parseEdits([]string{tc.edit})
		if err != nil {
			t.Errorf("%s: %v", tc.edit, err)
			continue
		}
		if got, err := applyEdits(jsontext.Value(data), edits); err != nil || string(got) != tc.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", tc.edit, got, err, tc.want)
		}
	}
	if edits, err := parseEdits([]string{"data.a=1"}); err != nil {
		t.Error(err)
	} else if got, err := applyEdits(jsontext.Value("{ }"), edits); err != nil || string(got) != `{"a":1}` {
		t.Errorf("an empty object becomes %s, %v", got, err)
	}
}

func FuzzEdits(f *testing.F) {
	f.Add(`{"a":[{}]}`, "data.a.0.b=1", "data.c=x")
	f.Add(`{}`, "data.0=[", "data.\xff=1")
	f.Fuzz(func(t *testing.T, data, first, second string) {
		if validObject(jsontext.Value(data)) != nil {
			t.Skip()
		}
		edits, err := parseEdits([]string{first, second})
		if err != nil {
			return
		}
		got, err := applyEdits(jsontext.Value(data), edits)
		if err != nil {
			return
		}
		if err := validObject(got); err != nil {
			t.Errorf("%s with %q and %q becomes %s: %v", data, first, second, got, err)
		}
	})
}

func TestOthersTextDoesNotSteerTheTerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain é 漢 🙂": "plain é 漢 🙂", "\x1b]0;title\x07": "\uFFFD]0;title\uFFFD", "a\r\nb\tc": "a\uFFFD\uFFFDb\uFFFDc",
		"\u202egnp.exe": "\uFFFDgnp.exe", "\x9b31m": "\uFFFD31m", "a\u0000b": "a\uFFFDb",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func TestSentences(t *testing.T) {
	for in, want := range map[string]string{
		"the store is full": "The store is full.", "client: the token is empty": "The token is empty.",
		"/var/x: no such file": "/var/x: no such file.", "posthorn.yaml: bad": "posthorn.yaml: bad.", "Is it?": "Is it?", "": "",
	} {
		if got := sentence(in); got != want {
			t.Errorf("%q becomes %q, want %q", in, got, want)
		}
	}
}

func TestCounts(t *testing.T) {
	got := strings.Join([]string{count(1, "endpoint"), count(0, "endpoint"), count(2, "delivery"), count(1, "delivery")}, ", ")
	if got != "1 endpoint, 0 endpoints, 2 deliveries, 1 delivery" {
		t.Error(got)
	}
}
