package cli

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/config"
)

// The doctor looks at the certificate that a server presents, whoever ends TLS there.
func TestDoctorSeesThatAServersCertificateEndsSoon(t *testing.T) {
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		life, left time.Duration
		wrong      bool
	}{
		"fresh":                           {90 * day, 80 * day, false},
		"eight days left":                 {90 * day, 8 * day, false},
		"six days left":                   {90 * day, 6 * day, true},
		"an hour left":                    {90 * day, time.Hour, true},
		"six days in all, three left":     {6 * day, 3 * day, false},
		"six days in all, a day left":     {6 * day, day, true},
		"a day in all, twelve hours left": {day, 12 * time.Hour, false},
		"ended":                           {90 * day, -time.Hour, true},
	} {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		ends := time.Now().Add(tt.left)
		form := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ends.Add(-tt.life), NotAfter: ends, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		der, err := x509.CreateCertificate(rand.Reader, form, form, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ready\n") }))
		server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
		server.Config.ErrorLog = log.New(io.Discard, "", 0)
		server.StartTLS()
		s := &serverCheck{now: time.Now, cfg: &config.Config{}, http: server.Client()}
		s.server = server.URL
		said, wrong := "", 0
		for _, f := range s.reach(t.Context()) {
			if said += fmt.Sprintln(f.State, f.What); f.State == "wrong" {
				wrong++
			}
		}
		if (wrong > 0) != tt.wrong || tt.wrong && !strings.Contains(said, "certificate") {
			t.Errorf("%s: it finds\n%s", name, said)
		}
		server.Close()
	}
}
