package client_test

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/client"
)

const settingsBody = `{"data":{"headers":{"X-Key":null},"rate_per_second":0.5,"max_in_flight":null,"timeout_seconds":null,"retry_schedule":[5,60],"filter":null,"ordered":true}}`

func TestSettingsSendOnlyWhatChanges(t *testing.T) {
	value, rate, n, filter, no := "v", 0.5, 3, "data.a < 1 && data.b == \"é\"", false
	for _, tc := range []struct {
		change client.SettingsChange
		body   string
	}{
		{client.SettingsChange{}, `{}`},
		{client.SettingsChange{Headers: map[string]*string{"X-Key": &value, "X-Old": nil}, IfMatch: `"7"`}, `{"headers":{"X-Key":"v","X-Old":null}}`},
		{client.SettingsChange{RatePerSecond: &rate, MaxInFlight: &n, TimeoutSeconds: &n, RetrySchedule: []int{5, 60}, Filter: &filter, Ordered: &no},
			`{"filter":"data.a < 1 && data.b == \"é\"","max_in_flight":3,"ordered":false,"rate_per_second":0.5,"retry_schedule":[5,60],"timeout_seconds":3}`},
		{client.SettingsChange{Reset: []string{"filter", "headers"}}, `{"filter":null,"headers":null}`},
	} {
		c := connect(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			if got := r.Method + " " + r.RequestURI; got != "PATCH /v2.3/webhooks/endpoints/wh_1/settings" || r.Header.Get("If-Match") != tc.change.IfMatch {
				t.Errorf("%s, If-Match %s", got, r.Header.Get("If-Match"))
			}
			if diff := cmp.Diff(tc.body, string(body)); diff != "" {
				t.Error(diff)
			}
			w.Header().Set("ETag", `"8"`)
			answer(w, 200, settingsBody)
		})
		s, err := c.UpdateSettings(t.Context(), "wh_1", tc.change)
		if err != nil {
			t.Fatal(err)
		}
		if v, named := s.Headers["X-Key"]; !named || v != nil || s.RatePerSecond != 0.5 || s.MaxInFlight != 0 || len(s.RetrySchedule) != 2 || s.Filter != "" || !s.Ordered || s.ETag != `"8"` {
			t.Errorf("%+v", s)
		}
	}
}

func TestARotationSendsWhatIsSet(t *testing.T) {
	none, hour := time.Duration(0), time.Hour
	for body, r := range map[string]client.Rotation{
		`{}`:                    {},
		`{"overlap_seconds":0}`: {Overlap: &none},
		`{"overlap_seconds":3600,"secret":"whsec_x"}`: {Overlap: &hour, Secret: "whsec_x"},
	} {
		c := connect(t, func(w http.ResponseWriter, r *http.Request) {
			got, _ := io.ReadAll(r.Body)
			if string(got) != body || r.RequestURI != "/v2.3/webhooks/endpoints/wh_1/secret/rotate" || r.Header.Get("Idempotency-Key") == "" {
				t.Errorf("%s %s, want %s", r.RequestURI, got, body)
			}
			answer(w, 200, `{"data":{"secret":"whsec_n","previous":[{"secret":"whsec_o","expires_at":"2026-05-01T09:10:00.000Z"}]}}`)
		})
		s, err := c.RotateSecret(t.Context(), "wh_1", r)
		if err != nil || s.Secret != "whsec_n" || len(s.Previous) != 1 || s.Previous[0].ExpiresAt.Day() != 1 {
			t.Errorf("%+v, %v", s, err)
		}
	}
}
