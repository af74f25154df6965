package api

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn"
)

// allowed are the values that the API's description allows for a member.
func allowed[T any](t *testing.T, member string) []string {
	t.Helper()
	f, ok := reflect.TypeFor[T]().FieldByName(member)
	if !ok || f.Tag.Get("enum") == "" {
		t.Fatalf("%s has no values", member)
	}
	return strings.Split(f.Tag.Get("enum"), ",")
}

// TestWhatANewerVersionStoredIsShownAsTheAPISays: nodes of two versions serve one
// database; clients hold every answer to one description.
func TestWhatANewerVersionStoredIsShownAsTheAPISays(t *testing.T) {
	for n := range 256 {
		d := posthorn.Delivery{Progress: posthorn.Progress{State: posthorn.State(n), Before: posthorn.State(n)}, Held: true, Reason: "superseded",
			Attempts: []posthorn.Attempt{{Class: posthorn.Class(n), At: began}}}
		shown := showDelivery(&d)
		if !slices.Contains(allowed[Delivery](t, "State"), shown.State) {
			t.Errorf("state %d is shown as %q", n, shown.State)
		}
		if shown.Reason == nil || *shown.Reason != "superseded" {
			t.Errorf("the reason is shown as %v", shown.Reason)
		}
		if a := shown.Attempts[0]; a.Class == "" || strings.ContainsAny(a.Class, "( )") || a.Explanation == "" {
			t.Errorf("class %d is shown as %q: %q", n, a.Class, a.Explanation)
		}
		r := posthorn.Replay{State: posthorn.ReplayState(n), Selection: posthorn.ReplaySelection{States: []posthorn.ShownState{"superseded"}}}
		if got := showReplay(&r).State; !slices.Contains(allowed[Replay](t, "State"), got) {
			t.Errorf("replay state %d is shown as %q", n, got)
		}
	}
	e := posthorn.Endpoint{Status: "draining", PausedReason: "quota", PausedAt: began, Settings: posthorn.Settings{Unknown: `{"mood":1}`}}
	if got := showEndpoint(&e).Status; got != "paused" {
		t.Errorf("the status is shown as %q", got)
	}
	h := showHealth(&e, posthorn.Health{}, LaneView{}, 1, time.Time{}, began)
	if h.Condition != "paused" || h.Reason == nil || *h.Reason != "quota" {
		t.Errorf("the health is shown as %+v", h)
	}
	if rep, err := settingsReply(&e); err != nil || strings.Contains(string(rep.body), "mood") {
		t.Errorf("the settings are shown as %s, %v", rep.body, err)
	}
}
