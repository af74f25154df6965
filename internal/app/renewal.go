package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/posthorn/posthorn/internal/renew"
)

// The files that somebody else renews while the service runs are those of tls-cert,
// tls-key, egress-ca, oidc-ca, and what the database's address names. They are read
// again as internal/renew says. The others are changed by an operator who decides
// what else has to change with them, and are read at the start: encryption-keys-file
// (all nodes must have a key before one seals with it), catalog, and the settings.

// rereading is a store that has files of its own to read again.
type rereading interface {
	// Reread reads them; on an error what they held before stays in use.
	Reread() error
}

// watchFiles has the files watched that serve listeners and stores.
func (n *node) watchFiles() (err error) {
	if s, ok := n.store.(rereading); ok {
		if err = n.files.Add(renew.Source{Setting: "store", Take: func([][]byte) error { return s.Reread() }}); err != nil {
			return err
		}
	}
	if n.cfg.TLSCert == "" {
		return nil
	}
	n.pair, err = n.files.Pair("tls-cert", n.cfg.TLSCert, n.cfg.TLSKey)
	return err
}

// serverTLS is what the API is served with; nil for none.
func (n *node) serverTLS() *tls.Config {
	if n.pair == nil {
		return nil
	}
	return &tls.Config{GetCertificate: n.pair.GetCertificate}
}

// trusted returns the authorities of a setting's file, nil without one. When the file
// changes, then is called with those that it has then.
func (n *node) trusted(setting, file string, then func(*x509.CertPool)) (cas *x509.CertPool, err error) {
	if file == "" {
		return nil, nil
	}
	err = n.files.Authorities(setting, file, func(now *x509.CertPool) {
		if cas == nil {
			cas = now
			return
		}
		then(now)
	})
	return cas, err
}

// hangups gets the process's SIGHUPs from now on. One that comes while a service
// starts is kept until it runs.
func hangups() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}

// serving is set once this process is a service, which SIGHUP never ends.
var serving atomic.Bool

// Signals returns the context of a process: it ends with SIGINT and SIGTERM, the
// second of which ends the process at once. With SIGHUP it ends unless the process is
// a service ([Serve], [Dev]), whose files are read again, or was started to
// outlive its terminal (nohup). It is called once, first of all.
func Signals() context.Context {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	outlives := signal.Ignored(syscall.SIGHUP)
	c := hangups()
	go func() {
		for range c {
			if !outlives && !serving.Load() {
				signal.Stop(c) // a second one ends the process at once
				stop()
				return
			}
		}
	}()
	return ctx
}

// watchRenewals tells of the files, and of the certificate that is served.
func (m *metrics) watchRenewals(files *renew.Watch, pair *renew.Pair) {
	m.registry.MustRegister(&renewalFigures{files})
	if pair != nil {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "posthorn_certificate_end_timestamp_seconds",
			Help: "When the certificate ends that the API is served with."},
			func() float64 { return float64(pair.Ends().UnixNano()) / float64(time.Second) }))
	}
}

type renewalFigures struct{ files *renew.Watch }

var (
	renewalBad = prometheus.NewDesc("posthorn_renewed_file_bad",
		"1 while what the files of a setting hold is not good, and what they held before is used.", []string{"setting"}, nil)
	renewalTaken = prometheus.NewDesc("posthorn_renewed_files_total",
		"Changes of the files of a setting that were put in use.", []string{"setting"}, nil)
)

func (f *renewalFigures) Describe(c chan<- *prometheus.Desc) {
	c <- renewalBad
	c <- renewalTaken
}

func (f *renewalFigures) Collect(c chan<- prometheus.Metric) {
	for _, s := range f.files.States() {
		bad := 0.0
		if s.Err != nil {
			bad = 1
		}
		c <- prometheus.MustNewConstMetric(renewalBad, prometheus.GaugeValue, bad, s.Setting)
		c <- prometheus.MustNewConstMetric(renewalTaken, prometheus.CounterValue, float64(s.Taken), s.Setting)
	}
}
