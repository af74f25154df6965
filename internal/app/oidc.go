package app

import (
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/posthorn/posthorn/internal/access"
	"github.com/posthorn/posthorn/internal/config"
)

// NewOIDC makes what the settings say of identity providers; nil without one.
func NewOIDC(cfg *config.Config, now func() time.Time, log *slog.Logger) (*access.OIDC, error) {
	if len(cfg.OIDCIssuers) == 0 {
		return nil, nil
	}
	c := access.OIDCConfig{
		Issuers: cfg.OIDCIssuers, Audiences: cfg.OIDCAudiences, JWKSURL: cfg.OIDCJWKSURL,
		TenantClaim: cfg.OIDCTenantClaim, ScopeClaim: cfg.OIDCScopeClaim, ScopeMap: cfg.OIDCScopeMap,
		Now: now, Log: log,
	}
	if cfg.OIDCCA != "" {
		var err error
		if c.CAs, err = authorities("--oidc-ca", cfg.OIDCCA); err != nil {
			return nil, err
		}
	}
	return access.NewOIDC(c)
}

// authorities are the system's and those of a PEM file.
func authorities(flag, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("cannot read the system's certificate authorities: %w", err)
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s: %s holds no PEM certificate", flag, file)
	}
	return pool, nil
}
