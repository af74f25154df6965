package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/doctor"
	"github.com/posthorn/posthorn/internal/secretbox"
	"github.com/posthorn/posthorn/internal/store"
	"github.com/posthorn/posthorn/internal/store/sqlite"
)

// Diagnose returns the checks of an installation on this machine: of all that its
// settings name. They change nothing, and a service may run beside them. resolve is
// the name that the resolver is asked for.
func Diagnose(cfg config.Config, resolve string) []doctor.Check {
	return []doctor.Check{
		{Name: "store", Run: func(ctx context.Context) []doctor.Finding { return checkStore(ctx, &cfg) }},
		{Name: "housekeeping", Run: func(ctx context.Context) []doctor.Finding { return checkUpkeep(ctx, &cfg) }},
		{Name: "disk", Run: func(context.Context) []doctor.Finding { return checkDisk(&cfg) }},
		{Name: "clocks", Run: func(ctx context.Context) []doctor.Finding { return checkClocks(ctx, &cfg) }},
		{Name: "keys", Run: func(ctx context.Context) []doctor.Finding { return checkKeys(ctx, &cfg) }},
		{Name: "catalogue", Run: func(context.Context) []doctor.Finding { return checkCatalog(&cfg) }},
		{Name: "certificate", Run: func(ctx context.Context) []doctor.Finding { return checkCertificate(ctx, &cfg, time.Now()) }},
		{Name: "identity provider", Run: func(ctx context.Context) []doctor.Finding { return checkOIDC(ctx, &cfg) }},
		{Name: "egress", Run: func(ctx context.Context) []doctor.Finding { return checkEgress(ctx, &cfg, resolve) }},
	}
}

func one(f doctor.Finding) []doctor.Finding { return []doctor.Finding{f} }

// shownFlag is the store as a command line names it.
func shownFlag(path string) string {
	if config.IsPostgres(path) {
		return config.ShownStore(path)
	}
	return "sqlite:" + path
}

func checkStore(ctx context.Context, cfg *config.Config) []doctor.Finding {
	s, err := OpenStore(ctx, cfg.StorePath)
	if err != nil {
		mend := "posthorn migrate --store " + shownFlag(cfg.StorePath)
		switch {
		case errors.Is(err, sqlite.ErrCorrupt):
			mend = "posthorn store restore NEWEST-BACKUP --store " + shownFlag(cfg.StorePath)
		case config.IsPostgres(cfg.StorePath) && !strings.Contains(err.Error(), "schema"):
			mend = "psql " + config.ShownStore(cfg.StorePath)
		}
		return one(doctor.Fault(mend, "%s", strings.TrimSuffix(err.Error(), ".")))
	}
	defer s.Close() // nothing was written
	found := one(doctor.Fine("%s has this version's schema", config.ShownStore(cfg.StorePath)))
	if on, err := s.Sending(ctx); err != nil {
		found = append(found, doctor.Fault("posthorn migrate --store "+shownFlag(cfg.StorePath), "the sending switch cannot be read: %v", err))
	} else if !on {
		found = append(found, doctor.Fault("posthorn sending resume", "sending is paused for the whole installation"))
	}
	if config.IsPostgres(cfg.StorePath) {
		return append(found, checkHistory(ctx, cfg, s, time.Now())...)
	}
	switch pid, err := sqlite.Holder(cfg.StorePath); {
	case err != nil:
		found = append(found, doctor.Fault("ls -l "+cfg.StorePath+".lock", "its lock cannot be looked at: %v", err))
	case pid != 0:
		found = append(found, doctor.Fine("process %d serves it", pid))
	default:
		found = append(found, doctor.Skip("no process of this machine serves it now"))
	}
	return found
}

func checkDisk(cfg *config.Config) []doctor.Finding {
	if config.IsPostgres(cfg.StorePath) {
		return one(doctor.Skip("the database's own"))
	}
	free, low, err := sqlite.Space(cfg.StorePath)
	switch {
	case err != nil:
		return one(doctor.Fault("df -h "+cfg.StorePath, "free space cannot be told: %v", err))
	case low:
		return one(doctor.Fault("df -h "+cfg.StorePath, "%d MiB are free, which is below the reserve: publishing is answered 503", free>>20))
	}
	return one(doctor.Fine("%d MiB are free", free>>20))
}

// checkKeys tries the keys on one box of each key and kind, and counts the boxes
// that have none.
func checkKeys(ctx context.Context, cfg *config.Config) []doctor.Finding {
	if cfg.EncryptionKeys == "" {
		return one(doctor.Skip("there are none to try"))
	}
	ring, err := openKeys(cfg.EncryptionKeys)
	if err != nil {
		return one(doctor.Fault("posthorn key generate", "%v", err))
	}
	s, err := OpenStore(ctx, cfg.StorePath)
	if err != nil {
		return one(doctor.Skip("the store cannot be opened"))
	}
	defer s.Close() // nothing was written
	noted, err := s.NotedKeys(ctx)
	if err == nil {
		err = sameKeys(noted, ring)
	}
	if err != nil {
		return one(doctor.Fault("export "+secretbox.EnvironmentVariable+"=… (the keys that the service has)", "%s", strings.TrimSuffix(err.Error(), ".")))
	}
	lost, opened, err := tryBoxes(ctx, s, ring)
	if err != nil {
		return one(doctor.Fault("posthorn migrate --store "+shownFlag(cfg.StorePath), "what is sealed cannot be listed: %v", err))
	}
	if len(lost) == 0 {
		return one(doctor.Fine("they open what is sealed (%d kinds tried); %s seals", opened, ring.Current()))
	}
	var found []doctor.Finding
	for _, id := range slices.Sorted(maps.Keys(lost)) {
		found = append(found, doctor.Fault(
			fmt.Sprintf("put the key %s behind the others in %s, then: posthorn key rotate", id, secretbox.EnvironmentVariable),
			"%d sealed with the key %s cannot be opened: deliveries to their endpoints wait", lost[id], id))
	}
	return found
}

func tryBoxes(ctx context.Context, s store.Sealing, ring *secretbox.Keyring) (lost map[string]int, opened int, err error) {
	lost = map[string]int{}
	tried := map[string]bool{}
	for after := (store.Box{}); ; {
		boxes, err := s.Boxes(ctx, after, 1000)
		if err != nil {
			return nil, 0, err
		}
		for i := range boxes {
			b := &boxes[i]
			keyID, box, ok := b.KeyID, b.Sealed, true
			if b.Kind == store.BoxAnswer {
				if keyID, box, ok = secretbox.Unpack(b.Sealed); !ok {
					continue // forgotten within a day
				}
			}
			kind := fmt.Sprint(keyID, " ", b.Kind)
			good, known := tried[kind]
			if !known {
				plain, _, err := openBox(ring, b, keyID, box)
				clear(plain)
				good = err == nil
				tried[kind] = good
			}
			if !good {
				lost[keyID]++
			}
		}
		if len(boxes) < 1000 {
			return lost, len(tried), nil
		}
		after = boxes[len(boxes)-1]
	}
}

func checkCatalog(cfg *config.Config) []doctor.Finding {
	c, err := openCatalog(cfg.Catalog)
	if err != nil {
		return one(doctor.Fault("posthorn doctor (when "+cfg.Catalog+" is mended)", "%s", strings.TrimSuffix(err.Error(), ".")))
	}
	return one(doctor.Fine("%d event types", len(c.Types())))
}

func checkOIDC(ctx context.Context, cfg *config.Config) []doctor.Finding {
	cas, err := authorities("oidc-ca", cfg.OIDCCA)
	if err != nil {
		return one(doctor.Fault("posthorn config check", "%v", err))
	}
	o, err := newOIDC(cfg, cas, time.Now, slog.New(slog.DiscardHandler))
	switch {
	case err != nil:
		return one(doctor.Fault("posthorn config check", "%v", err))
	case o == nil:
		return one(doctor.Skip("none is set"))
	}
	if err := o.Probe(ctx); err != nil {
		var found []doctor.Finding
		for line := range strings.SplitSeq(err.Error(), "\n") {
			found = append(found, doctor.Fault("curl -v "+strings.TrimSuffix(cfg.OIDCIssuers[0], "/")+"/.well-known/openid-configuration", "%s", line))
		}
		return found
	}
	return one(doctor.Fine("the keys of %s were fetched", strings.Join(cfg.OIDCIssuers, ", ")))
}

func checkEgress(ctx context.Context, cfg *config.Config, name string) []doctor.Finding {
	if _, err := authorities("egress-ca", cfg.EgressCA); err != nil {
		return one(doctor.Fault("openssl x509 -noout -subject -in "+cfg.EgressCA+" (then replace it)", "%v", err))
	}
	if p := cfg.EgressProxy; p != nil {
		port := p.Port()
		if port == "" {
			port = map[string]string{"http": "80", "https": "443"}[p.Scheme]
		}
		c, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(p.Hostname(), port))
		if err != nil {
			return one(doctor.Fault("curl -v --proxy "+p.Redacted()+" https://example.com/", "the egress proxy cannot be reached: %v", err))
		}
		return one(doctor.Fine("the egress proxy %s answers", errorless(c)))
	}
	_, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		err = nil // it answered
	}
	if err != nil {
		return one(doctor.Fault("getent hosts "+name, "the resolver does not answer: %v; deliveries wait until it does", err))
	}
	return one(doctor.Fine("the resolver answers"))
}

// errorless closes a connection that was only tried, and names its other end.
func errorless(c net.Conn) string {
	defer c.Close() // nothing was sent
	return c.RemoteAddr().String()
}
