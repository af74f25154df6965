package api

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/webhook"
)

// secretsOf are the secrets in an answer, as "current; previous until time; …".
func secretsOf(r *result) string {
	r.t.Helper()
	r.hasHeader("Cache-Control", "no-store")
	text := r.text("data.secret")
	for i := range r.value("data.previous").([]any) {
		text += fmt.Sprintf("; %s until %s", r.text(fmt.Sprint("data.previous.", i, ".secret")), r.text(fmt.Sprint("data.previous.", i, ".expires_at")))
	}
	return text
}

// stored are the secrets that sign now, as the store has them.
func (w *world) storedSecrets(id string) (texts []string) {
	w.t.Helper()
	e, err := w.store.EndpointByRef(w.t.Context(), w.tenant("acme").ID, id)
	if err != nil {
		w.t.Fatal(err)
	}
	target, err := w.store.Target(w.t.Context(), e.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range store.Valid(target.Secrets, w.now()) {
		key, err := w.keyring.Open(s.KeyID, s.Box, secretbox.Bind{Kind: "secret", Tenant: e.Tenant, Endpoint: e.ID})
		if err != nil {
			w.t.Fatal(err)
		}
		texts = append(texts, webhook.FormatSecret(key))
	}
	return texts
}

func TestASecretIsRevealedAndRotated(t *testing.T) {
	w := newWorld(t)
	created := w.do("acme", "POST", "/endpoints", validEndpoint).want(201)
	first, path := created.text("data.secret"), "/endpoints/"+created.text("data.id")+"/secret"
	reveal := func(want string) {
		t.Helper()
		if got := secretsOf(w.do("acme-write", "GET", path, "").want(200)); got != want {
			t.Errorf("revealed %s\nwant     %s", got, want)
		}
	}
	rotate := func(body string) *result { return w.do("acme-write", "POST", path+"/rotate", body) }
	reveal(first)

	second := rotate(`{}`).want(200).text("data.secret") // a day
	if _, err := webhook.ParseSecret(second); err != nil || second == first {
		t.Errorf("the new secret is %q: %v", second, err)
	}
	reveal(second + "; " + first + " until 2026-04-30T09:10:00.000Z")
	if diff := cmp.Diff([]string{second, first}, w.storedSecrets(created.text("data.id"))); diff != "" {
		t.Error(diff)
	}
	w.pass(24*time.Hour - time.Nanosecond)
	reveal(second + "; " + first + " until 2026-04-30T09:10:00.000Z")
	w.pass(time.Nanosecond)
	reveal(second)

	// One's own, and for an hour only.
	own := webhook.NewSecret()
	rotate(`{"secret":"` + own + `","overlap_seconds":3600}`).want(200)
	reveal(own + "; " + second + " until 2026-04-30T10:10:00.000Z")
	rotate(`{"secret":"` + own + `"}`).faults(409).says("already")
	// The former one again: back as it was, and kept once.
	rotate(`{"secret":"` + second + `","overlap_seconds":604800}`).want(200)
	reveal(second + "; " + own + " until 2026-05-07T09:10:00.000Z")

	// Five sign at a time; nothing of overlap ends all former ones.
	var newest []string
	for range 3 {
		newest = append(newest, rotate(`{"overlap_seconds":60}`).want(200).text("data.secret"))
	}
	if n := len(w.storedSecrets(created.text("data.id"))); n != 5 {
		t.Errorf("%d secrets sign", n)
	}
	rotate(`{}`).faults(409).says("5 secrets")
	reveal(newest[2] + "; " + newest[1] + " until 2026-04-30T09:11:00.000Z; " + newest[0] + " until 2026-04-30T09:11:00.000Z; " +
		second + " until 2026-04-30T09:11:00.000Z; " + own + " until 2026-05-07T09:10:00.000Z")
	last := rotate(`{"overlap_seconds":0}`).want(200)
	reveal(secretsOf(last))
	if got := w.storedSecrets(created.text("data.id")); len(got) != 1 || got[0] != last.text("data.secret") {
		t.Errorf("%v sign", got)
	}
	w.as("acme", "GET", path, "").do().want(200)
	w.do("acme", "GET", "/endpoints/"+created.text("data.id"), "").want(200).hasHeader("ETag", `"1"`) // the resource is as it was
	for _, text := range append(newest, first, second, own, last.text("data.secret")) {
		if strings.Contains(w.log.String(), strings.TrimPrefix(text, "whsec_")) {
			t.Errorf("%s is in the log", text)
		}
	}
}

func TestFaultsOfARotation(t *testing.T) {
	w := newWorld(t)
	created := w.do("acme", "POST", "/endpoints", validEndpoint).want(201)
	path := "/endpoints/" + created.text("data.id") + "/secret"
	for body, pointers := range map[string][]string{
		`{"overlap_seconds":-1}`:      {"/overlap_seconds"},
		`{"overlap_seconds":604801}`:  {"/overlap_seconds"},
		`{"overlap_seconds":1.5}`:     {"/overlap_seconds"},
		`{"overlap_seconds":"60"}`:    {"/overlap_seconds"},
		`{"overlap_seconds":null}`:    {"/overlap_seconds"},
		`{"overlap_seconds":1e400}`:   {"/overlap_seconds"},
		`{"secret":""}`:               {"/secret"},
		`{"secret":"whsec_c2hvcnQ="}`: {"/secret"},
		`{"secret":"whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY","overlap_seconds":-1}`: {"/secret", "/overlap_seconds"}, // no padding
		`{"secret":7,"x":1}`: {"/secret", "/x"},
	} {
		got := w.do("acme", "POST", path+"/rotate", body).faults(422, pointers...)
		if strings.Contains(got.body, "c2hvcnQ") || strings.Contains(got.body, "MDEyMz") {
			t.Errorf("the answer repeats the secret: %s", got.body)
		}
	}
	if got := secretsOf(w.do("acme", "GET", path, "").want(200)); got != created.text("data.secret") {
		t.Error("a refused rotation changed something")
	}
	w.do("other", "POST", path+"/rotate", `{"overlap_seconds":-1}`).faults(404)
	w.do("acme-read", "GET", path, "").faults(403)
}

// What is answered to a repeated rotation is what was answered then, and nothing
// of it stands in the store as it is.
func TestARotationIsRepeatedByItsKey(t *testing.T) {
	w := newWorld(t)
	path := "/endpoints/" + w.endpoint("acme", validEndpoint) + "/secret"
	rotate := func() *result {
		return w.as("acme", "POST", path+"/rotate", `{}`).with("Idempotency-Key", "k").do().want(200)
	}
	first := rotate()
	w.pass(time.Hour)
	if again := rotate().hasHeader("Idempotent-Replayed", "true"); secretsOf(again) != secretsOf(first) {
		t.Errorf("first %s, again %s", first.body, again.body)
	}
	if got := secretsOf(w.do("acme", "GET", path, "").want(200)); got != secretsOf(first) {
		t.Errorf("%s sign, want %s", got, secretsOf(first))
	}
}
