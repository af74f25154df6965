package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/client"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
	"github.com/posthorn/posthorn/webhook"
)

// A secret that is rotated on one node signs what another one sends within a second,
// beside the former one; and the former one stops when its end is called.
func TestARotationOnOneNodeIsFeltOnTheOthers(t *testing.T) {
	url := pgtest.Database(t, "")
	keys := "POSTHORN_ENCRYPTION_KEYS=k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	a, b := serveOn(t, url, keys), serveOn(t, url, keys)
	token := a.token(t, "acme")
	onA := must(client.New(client.Config{Server: a.base, Token: token}))(t)
	onB := must(client.New(client.Config{Server: b.base, Token: token}))(t)
	receiver, requests := listener(t)
	e := must(onA.CreateEndpoint(t.Context(), client.NewEndpoint{URL: receiver, Events: []string{"cases.*"}}))(t)

	// signed publishes on B, which then sends at once what it stored, and returns which
	// of the secrets verify.
	signed := func(secrets ...string) string {
		t.Helper()
		must(onB.Send(t.Context(), client.Event{Type: "cases.updated", Data: []byte(`{}`)}))(t)
		r := next(t, requests)
		var fit []string
		for i, secret := range secrets {
			if must(webhook.NewVerifier(secret))(t).Verify(r.header, r.body) == nil {
				fit = append(fit, fmt.Sprint(i))
			}
		}
		return strings.Join(fit, " ")
	}
	// within wants what is signed to become so within a second of the change.
	within := func(changed time.Time, want string, secrets ...string) {
		t.Helper()
		for {
			got, took := signed(secrets...), time.Since(changed)
			if got == want {
				t.Logf("felt on the other node after %s", took.Round(time.Millisecond))
				return
			}
			if took > time.Second {
				t.Fatalf("%s after the change %q of the secrets sign, want %q", took, got, want)
			}
		}
	}
	if got := signed(e.Secret); got != "0" {
		t.Fatalf("before the change: %q", got)
	}
	day := 24 * time.Hour
	rotated := must(onA.RotateSecret(t.Context(), e.ID, client.Rotation{Overlap: &day}))(t)
	within(time.Now(), "0 1", e.Secret, rotated.Secret)
	shown := must(onB.EndpointSecret(t.Context(), e.ID))(t)
	if len(shown.Previous) != 1 || shown.Previous[0].Secret != e.Secret || time.Until(shown.Previous[0].ExpiresAt) < day-time.Minute {
		t.Errorf("the other node shows %+v", shown)
	}
	now := time.Duration(0)
	last := must(onA.RotateSecret(t.Context(), e.ID, client.Rotation{Overlap: &now}))(t)
	within(time.Now(), "2", e.Secret, rotated.Secret, last.Secret)
	if log := b.log.String(); strings.Contains(log, "whsec_") {
		t.Error("a secret is in the log")
	}
}
