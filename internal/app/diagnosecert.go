package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// checkCertificate looks at the files, and at what the service presents that runs with
// them: a file that is good is of no use to clients that get another one.
func checkCertificate(ctx context.Context, cfg *config.Config, now time.Time) []doctor.Finding {
	if cfg.TLSCert == "" {
		return one(doctor.Skip("TLS is ended elsewhere, or not at all"))
	}
	var found []doctor.Finding
	file, err := leafOf(cfg)
	if err != nil {
		found = append(found, doctor.Fault("openssl x509 -noout -dates -in "+cfg.TLSCert+" (then replace it and "+cfg.TLSKey+")", "%v", err))
	} else {
		found = append(found, judgeEnd("it", file, now, "openssl x509 -noout -dates -in "+cfg.TLSCert+" (then renew it: the service reads it again by itself)"))
	}
	return append(found, checkServed(ctx, cfg, file, now))
}

func leafOf(cfg *config.Config) (*x509.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cfg.TLSCert, cfg.TLSKey)
	if err != nil {
		return nil, err
	}
	return pair.Leaf, nil
}

// judgeEnd is the finding about a certificate's time.
func judgeEnd(which string, c *x509.Certificate, now time.Time, mend string) doctor.Finding {
	switch end := posthorn.FormatTime(c.NotAfter); {
	case now.After(c.NotAfter):
		return doctor.Fault(mend, "%s ended on %s", which, end)
	case now.Before(c.NotBefore):
		return doctor.Fault(mend, "%s is good from %s only", which, posthorn.FormatTime(c.NotBefore))
	case doctor.EndsSoon(c, now):
		return doctor.Fault(mend, "%s ends on %s", which, end)
	default:
		return doctor.Fine("%s is good until %s", which, end)
	}
}

// checkServed compares what the running service presents with the file; file is nil
// if that is not good.
func checkServed(ctx context.Context, cfg *config.Config, file *x509.Certificate, now time.Time) doctor.Finding {
	address := cfg.ListenHere()
	served, err := presented(ctx, address)
	reread := rereadCommand(cfg)
	switch {
	case errors.Is(err, errNoListener):
		return doctor.Skip("no service answers at %s, so what it serves is not looked at", address)
	case err != nil:
		return doctor.Fault("systemctl restart posthorn", "what answers at %s presents no certificate (%v); the service was started without tls-cert, or it is another program", address, err)
	case file != nil && !served.Equal(file):
		return doctor.Fault(reread+" (it reads the file; if that changes nothing: journalctl -u posthorn -n 50)",
			"the service serves another certificate than the file; the one that it serves %s, the file's ends on %s", endOf(served, now), posthorn.FormatTime(file.NotAfter))
	case file == nil:
		return judgeEnd("the one that the service serves", served, now, reread+" (when "+cfg.TLSCert+" and "+cfg.TLSKey+" are good)")
	}
	if f := judgeEnd("the one that the service serves", served, now, reread+" (when "+cfg.TLSCert+" is renewed)"); f.State == doctor.Wrong {
		return f
	}
	return doctor.Fine("the service serves the one of the file")
}

func endOf(c *x509.Certificate, now time.Time) string {
	if now.After(c.NotAfter) {
		return "ended on " + posthorn.FormatTime(c.NotAfter)
	}
	return "ends on " + posthorn.FormatTime(c.NotAfter)
}

var errNoListener = errors.New("nobody listens there")

// presented is the certificate that a listener presents. It is looked at, not trusted:
// nothing is sent.
func presented(ctx context.Context, address string) (*x509.Certificate, error) {
	nc, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, errNoListener
	}
	defer nc.Close()
	c := tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	return c.ConnectionState().PeerCertificates[0], nil
}

// rereadCommand has the service read its files again.
func rereadCommand(cfg *config.Config) string {
	if !config.IsPostgres(cfg.StorePath) {
		if pid, err := sqlite.Holder(cfg.StorePath); err == nil && pid != 0 {
			return fmt.Sprintf("kill -HUP %d", pid)
		}
	}
	return "systemctl kill -s HUP posthorn"
}
