package app

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/posthorn/posthorn/internal/clock"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/idp"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/postgres/pgtest"
)

// diagnosed returns what the doctor finds, a line each.
func diagnosed(t *testing.T, environ ...string) string {
	t.Helper()
	cfg, err := config.Load(config.Sources{Environ: append([]string{"POSTHORN_ENCRYPTION_KEYS=" + secretbox.Generate("k1")}, environ...)})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	err = doctor.Run(t.Context(), Diagnose(cfg, "localhost"), func(f doctor.Finding) error {
		b.WriteString(f.Check + ": " + string(f.State) + ": " + f.What + " | " + f.Mend + "\n")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func wants(t *testing.T, got string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(got, l) {
			t.Errorf("it does not find %q but\n%s", l, got)
		}
	}
}

func TestDoctorOnPostgres(t *testing.T) {
	url := pgtest.Database(t, "template1")
	got := diagnosed(t, "POSTHORN_STORE="+url)
	wants(t, got, "store: wrong: ", "schema", "posthorn migrate --store postgres://", "keys: skipped: ")
	if _, _, err := Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	got = diagnosed(t, "POSTHORN_STORE="+url)
	wants(t, got, "store: ok: postgres://", "disk: skipped: ", "clocks: ok: ", "keys: ok: ")
	if strings.Contains(got, "wrong") {
		t.Errorf("nothing is wrong, but\n%s", got)
	}
	// A node makes the history's tables for weeks; then it is kept from it.
	s, err := openServing(t.Context(), &config.Config{StorePath: url}, clock.New(clock.Options{Driven: true, Slack: slack(url)}), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Sweep(t.Context(), time.Now(), store.Retention{}); err != nil {
		t.Fatal(err)
	}
	if got = diagnosed(t, "POSTHORN_STORE="+url); strings.Contains(got, "wrong") {
		t.Errorf("nothing is wrong, but\n%s", got)
	}
	m := newMetrics()
	m.watchHistory(s, time.Now)
	for weeks, says := range map[int]string{0: "", 3: "for 1", 9: "for 0 days ahead only, of 35: no node runs, or something keeps it locked"} {
		at := time.Now().Add(time.Duration(weeks) * 7 * 24 * time.Hour)
		found := checkHistory(t.Context(), &config.Config{StorePath: url}, s, at)
		if (len(found) > 0) != (says != "") || says != "" && !strings.Contains(found[0].What, says) {
			t.Errorf("%d weeks on it finds %+v, want %q", weeks, found, says)
		}
	}
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	ahead := 0.0
	for _, f := range families {
		if f.GetName() == "posthorn_history_ahead_seconds" {
			ahead = f.Metric[0].Gauge.GetValue()
		}
	}
	if ahead < historyAhead.Seconds()-60 {
		t.Errorf("the metric says %.0f", ahead)
	}
	got = diagnosed(t, "POSTHORN_STORE=postgres://nobody:s3cret@127.0.0.1:1/none")
	wants(t, got, "store: wrong: ", "keys: skipped: ")
	if strings.Contains(got, "s3cret") {
		t.Errorf("it shows the password:\n%s", got)
	}
}

// TestDoctorSaysThatNobodySweeps: a node serves, and the housekeeping stands still.
func TestDoctorSaysThatNobodySweeps(t *testing.T) {
	url := pgtest.Database(t, "template1")
	if _, _, err := Migrate(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	wants(t, diagnosed(t, "POSTHORN_STORE="+url), "housekeeping: skipped: no node serves the database now")
	pgtest.Exec(t, url, `INSERT INTO posthorn.runs (node, host, started_at) VALUES (0, 'a', 1)`)
	wants(t, diagnosed(t, "POSTHORN_STORE="+url), "housekeeping: ok: a node did the housekeeping", "housekeeping: wrong: the tables for what is published are made for 0s only")
	pgtest.Exec(t, url, `UPDATE posthorn.locks SET done_at = clock_timestamp() - interval '26 hours'`)
	wants(t, diagnosed(t, "POSTHORN_STORE="+url), "housekeeping: wrong: no node has done the housekeeping for 26h0m", "posthorn.locks")
	role := "posthorn_test_" + pgtest.Name(url)
	pgtest.Exec(t, url, `CREATE ROLE `+role+` LOGIN; GRANT USAGE ON SCHEMA posthorn TO `+role)
	wants(t, diagnosed(t, "POSTHORN_STORE="+url), role+" may lock all tables of posthorn", "as every one may (PUBLIC)")
	pgtest.Exec(t, url, `DROP OWNED BY `+role+`; DROP ROLE `+role)
}

func TestDoctorOnCertificatesAndProviders(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "posthorn.db")
	if _, _, err := Migrate(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	for want, ends := range map[string]time.Duration{
		"certificate: ok: it is good until": 30 * 24 * time.Hour, "certificate: wrong: it ends on": 24 * time.Hour, "certificate: wrong: it ended on": -time.Hour,
	} {
		cert, key := certificate(t, dir, time.Now().Add(ends))
		wants(t, diagnosed(t, "POSTHORN_STORE=sqlite:"+path, "POSTHORN_TLS_CERT="+cert, "POSTHORN_TLS_KEY="+key), want)
	}
	p := idp.Start(idp.NewKey("k1", "EdDSA"))
	defer p.Close()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, p.CAFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	with := []string{"POSTHORN_STORE=sqlite:" + path, "POSTHORN_OIDC_ISSUER=" + p.URL, "POSTHORN_OIDC_AUDIENCE=posthorn"}
	wants(t, diagnosed(t, with...), "identity provider: wrong: discovery of "+p.URL, "certificate signed by unknown authority")
	with = append(with, "POSTHORN_OIDC_CA="+ca)
	wants(t, diagnosed(t, with...), "identity provider: ok: the keys of "+p.URL+" were fetched")
	p.SetKeys(idp.Weak("k1"))
	wants(t, diagnosed(t, with...), "identity provider: wrong: the keys of "+p.URL+": there is none that signs")
}

// certificate writes one of its own authority that ends then.
func certificate(t *testing.T, dir string, ends time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	form := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: ends.Add(-90 * 24 * time.Hour), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, form, form, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: secret}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
