package app

import (
	"crypto/x509"
	"log/slog"
	"time"

	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/config"
	"github.com/posthorn/posthorn/internal/renew"
)

// newOIDC makes what the settings say of identity providers; nil without one. cas
// verify them, nil stands for the system's.
func newOIDC(cfg *config.Config, cas *x509.CertPool, now func() time.Time, log *slog.Logger) (*access.OIDC, error) {
	if len(cfg.OIDCIssuers) == 0 {
		return nil, nil
	}
	return access.NewOIDC(access.OIDCConfig{
		Issuers: cfg.OIDCIssuers, Audiences: cfg.OIDCAudiences, JWKSURL: cfg.OIDCJWKSURL,
		TenantClaim: cfg.OIDCTenantClaim, ScopeClaim: cfg.OIDCScopeClaim, ScopeMap: cfg.OIDCScopeMap,
		CAs: cas, Now: now, Log: log,
	})
}

// authorities are the system's and those of a setting's file, as they are now; nil
// without a file.
func authorities(setting, file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	var pool *x509.CertPool
	err := renew.New(slog.New(slog.DiscardHandler)).Authorities(setting, file, func(cas *x509.CertPool) { pool = cas })
	return pool, err
}
