package terminal

import (
	"encoding/json"
	"strings"
	"testing"
)

// What is written as JSON to a terminal steers nothing and says the same.
func TestJSONIsHarmless(t *testing.T) {
	for _, text := range []string{
		"plain", "ä€😀 Grüße", "\u009b31mred", "\u0090q", "\u007f", "\u202egnp.exe", "\u2066a\u2069", "\u200b\u200f", "\u2028\u2029", "\ufeff", "\U000e0041", "\u0085", "a\u061cb",
	} {
		raw := []byte("{\n  \"a" + text + "\": [\"" + text + "\", 1e400]\n}")
		got := JSON(raw)
		for _, c := range string(got) {
			if c != '\n' && Printable(string(c)) != string(c) {
				t.Errorf("%q is written as %q", text, got)
			}
		}
		var was, is map[string][]any
		if json.Unmarshal([]byte(strings.Replace(string(raw), "1e400", "1", 1)), &was) != nil ||
			json.Unmarshal([]byte(strings.Replace(string(got), "1e400", "1", 1)), &is) != nil || len(is) != 1 || is["a"+text][0] != was["a"+text][0] {
			t.Errorf("%q is written as %q, which is %q", text, got, is)
		}
	}
	if got := string(JSON([]byte("\"a\x9bb\""))); got != `"a\ufffdb"` {
		t.Errorf("a byte that is no UTF-8 is written as %q", got)
	}
	for _, text := range []string{`{"a":"ü\u001b","b":[1.0,"\/"]}`, "[]\n"} {
		if got := string(JSON([]byte(text))); got != text {
			t.Errorf("%s is written as %s", text, got)
		}
	}
}

func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"Grüße 😀": "Grüße 😀", "a\x1b[2J": "a\ufffd[2J", "a\u009b2J": "a\ufffd2J", "a\r\nb": "a\ufffd\ufffdb", "\u202eexe": "\ufffdexe",
		"a\x00\x7f": "a\ufffd\ufffd", "a\x9bb": "a\ufffdb", "a\tb": "a\ufffdb",
	} {
		if got := Printable(text); got != want {
			t.Errorf("%q is printed as %q, want %q", text, got, want)
		}
	}
	if got := Brief("a\x1bcdef", 4); got != "a\ufffdcd\ufffd" && got != "a\ufffdcd…" {
		t.Errorf("%q", got)
	}
}
