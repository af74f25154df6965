package posthorn

import (
	"fmt"
	"testing"
)

func TestURLsThatAreTheSame(t *testing.T) {
	for _, same := range [][]string{
		{"https://hooks.example.com", "https://hooks.example.com/", "https://HOOKS.Example.com:443/?a=b", "HTTPS://hooks.example.com./?", "https://hooks.example.com:443"},
		{"http://hooks.example.com/a", "http://hooks.example.com:80/a?x"},
		{"https://hooks.example.com:8443/a", "https://Hooks.example.com:8443/a?"},
		{"https://hooks.example.com:80/a"},
		{"https://hooks.example.com/a/"},
		{"https://hooks.example.com/A"},
		{"https://hooks.example.com/a%2Fb"},
		{"https://hooks.example.com/a/b"},
		{"https://[2001:db8::1]/a", "https://[2001:DB8:0::0001]:443/a"},
		{"https://192.0.2.1/a"},
		{""}, {"nonsense"}, {"::"},
	} {
		for _, url := range same {
			if got, want := ReceiverOf(url), ReceiverOf(same[0]); got != want {
				t.Errorf("%s is %s, and %s is %s", url, got, same[0], want)
			}
			if again := ReceiverOf(ReceiverOf(url)); again != ReceiverOf(url) && url != "::" {
				t.Errorf("of %s comes %s, and of that %s", url, ReceiverOf(url), again)
			}
		}
	}
	seen := map[string]string{}
	for _, url := range []string{"https://a.example.com/x", "http://a.example.com/x", "https://a.example.com:8443/x", "https://a.example.com/X", "https://b.example.com/x", "https://a.example.com/x/"} {
		if other := seen[ReceiverOf(url)]; other != "" {
			t.Errorf("%s and %s are the same", url, other)
		}
		seen[ReceiverOf(url)] = url
	}
}

func TestHostOf(t *testing.T) {
	for url, want := range map[string]string{
		"https://Hooks.Example.com:8443/a?b": "hooks.example.com", "http://hooks.example.com.": "hooks.example.com",
		"https://[2001:DB8:0::1]:1/": "2001:db8::1", "https://[::ffff:192.0.2.1]/": "192.0.2.1", "https://192.0.2.1": "192.0.2.1", "": "", "nonsense": "", "::": "",
	} {
		if got := HostOf(url); got != want {
			t.Errorf("the host of %s is %q, want %q", url, got, want)
		}
	}
}

func TestTooManyAtOneURL(t *testing.T) {
	others := []string{"https://other.example.com/"}
	for i := range MaxSameURL {
		if TooManyAt("https://hooks.example.com/", others) {
			t.Errorf("an endpoint beside %d is one too many", i)
		}
		others = append(others, fmt.Sprintf("https://HOOKS.example.com:443/?%d", i))
	}
	if !TooManyAt("https://hooks.example.com", others) {
		t.Error("one more is allowed")
	}
	if TooManyAt("https://hooks.example.com/other", others) {
		t.Error("another path is refused")
	}
}
