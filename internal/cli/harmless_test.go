package cli

import (
	"encoding/json"
	"strings"
	"testing"
)

// What is written as JSON to a terminal steers nothing and says the same.
func TestJSONForATerminalIsHarmless(t *testing.T) {
	for _, text := range []string{
		"plain", "ä€😀 Grüße", "\u009b31mred", "\u0090q", "\u007f", "\u202egnp.exe", "\u2066a\u2069", "\u200b\u200f", "\u2028\u2029", "\ufeff", "\U000e0041", "\u0085", "a\u061cb",
	} {
		raw := []byte("{\n  \"a" + text + "\": [\"" + text + "\", 1e400]\n}")
		got := harmless(raw)
		for _, c := range string(got) {
			if c != '\n' && printable(string(c)) != string(c) {
				t.Errorf("%q is written as %q", text, got)
			}
		}
		var was, is map[string][]any
		if json.Unmarshal([]byte(strings.Replace(string(raw), "1e400", "1", 1)), &was) != nil ||
			json.Unmarshal([]byte(strings.Replace(string(got), "1e400", "1", 1)), &is) != nil || len(is) != 1 || is["a"+text][0] != was["a"+text][0] {
			t.Errorf("%q is written as %q, which is %q", text, got, is)
		}
	}
	if got := string(harmless([]byte("\"a\x9bb\""))); got != `"a\ufffdb"` {
		t.Errorf("a byte that is no UTF-8 is written as %q", got)
	}
	for _, text := range []string{`{"a":"ü\u001b","b":[1.0,"\/"]}`, "[]\n"} {
		if got := string(harmless([]byte(text))); got != text {
			t.Errorf("%s is written as %s", text, got)
		}
	}
}
