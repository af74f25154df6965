package send

import (
	"fmt"
	"testing"
)

// What is remembered of a URL is what its text says, it is bounded, and what is
// refused is not remembered.
func TestTargetsAreRemembered(t *testing.T) {
	var remembered targets
	g := NewGuard(Config{})
	const raw = "https://Partner.example.com:8443/hooks?a=b"
	first, err := remembered.get(&g, raw)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := g.parse(raw)
	if *first != want || first.origin != "https://partner.example.com:8443" {
		t.Errorf("%+v, want %+v", *first, want)
	}
	if again, _ := remembered.get(&g, raw); again != first {
		t.Error("it was taken apart again")
	}
	if _, err := remembered.get(&g, "http://partner.example.com/"); err == nil || len(remembered.of) != 1 {
		t.Errorf("plain http: %v, %d remembered", err, len(remembered.of))
	}
	for i := range maxTargets + 10 {
		if _, err := remembered.get(&g, fmt.Sprintf("https://partner.example.com/%d", i)); err != nil {
			t.Fatal(err)
		}
		if n := len(remembered.of); n > maxTargets {
			t.Fatalf("%d URLs are remembered", n)
		}
	}
	if again, err := remembered.get(&g, raw); err != nil || *again != want {
		t.Errorf("after it was forgotten: %+v, %v", again, err)
	}
}
