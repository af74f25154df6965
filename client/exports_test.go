package client_test

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/posthorn/posthorn/client"
)

func TestAnExportWithoutItsLastLineIsCutShort(t *testing.T) {
	for body, want := range map[string]error{
		"{\"event\":{}}\n{\"end\":{\"endpoints\":1,\"events\":2,\"deliveries\":3}}\n": nil,
		"{\"event\":{}}\n":                          client.ErrCutShort,
		"{\"event\":{}}\n{\"end\":{\"endpoints\":1": client.ErrCutShort,
		"": client.ErrCutShort,
	} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(body)) }))
		c, err := client.New(client.Config{Server: s.URL, Token: "t"})
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		got, err := c.DownloadExport(t.Context(), "exp_1", &out)
		if !errors.Is(err, want) || out.String() != body {
			t.Errorf("%q: %v, wrote %q", body, err, out.String())
		}
		if want == nil && got != (client.Exported{Endpoints: 1, Events: 2, Deliveries: 3}) {
			t.Errorf("%+v", got)
		}
		s.Close()
	}
}
