package config

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

func parseIssuers(v string, to *[]string) error {
	*to = items(v)
	for _, issuer := range *to {
		if err := checkProviderURL(issuer); err != nil {
			return err
		}
	}
	return nil
}

// checkProviderURL is what package access refuses too, said where the setting is
// read.
func checkProviderURL(v string) error {
	u, err := url.Parse(v)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Fragment != "" || u.Scheme != "https" && u.Scheme != "http" {
		return errors.New("an identity provider is written https://HOST/PATH")
	}
	a, err := netip.ParseAddr(u.Hostname())
	if u.Scheme == "http" && u.Hostname() != "localhost" && (err != nil || !a.IsLoopback()) {
		return fmt.Errorf("%q is http; only on loopback may it be: whoever changes the keys on their way makes tokens", v)
	}
	return nil
}

// tenantScopes are what a JWT can have; admin belongs to the platform's tokens.
var tenantScopes = []string{"webhooks:read", "webhooks:write", "events:publish"}

func parseScopeMap(v string, to *map[string]string) error {
	*to = map[string]string{}
	for _, item := range items(v) {
		i := strings.LastIndexByte(item, '=')
		if i <= 0 || i == len(item)-1 {
			return fmt.Errorf("%q is not written NAME=SCOPE", item)
		}
		name, scope := item[:i], item[i+1:]
		if !slices.Contains(tenantScopes, scope) {
			return fmt.Errorf("%q is not a scope that a JWT can have; those are %s", scope, strings.Join(tenantScopes, ", "))
		}
		if _, twice := (*to)[name]; twice {
			return fmt.Errorf("%q is there twice; a name means one scope", name)
		}
		(*to)[name] = scope
	}
	return nil
}

// checkOIDC returns what of the settings does not go together.
func (c *Config) checkOIDC() (faults []error) {
	if len(c.OIDCIssuers) == 0 {
		for _, s := range []string{"oidc-audience", "oidc-jwks-url", "oidc-scope-map", "oidc-ca"} {
			if c.Chosen(s) {
				faults = append(faults, fmt.Errorf("%s is given, but no oidc-issuer", s))
			}
		}
		return faults
	}
	if len(c.OIDCAudiences) == 0 {
		faults = append(faults, errors.New("oidc-audience is missing: without it a token that was made for another service would be taken"))
	}
	if c.OIDCJWKSURL != "" && len(c.OIDCIssuers) > 1 {
		faults = append(faults, errors.New("oidc-jwks-url goes with one oidc-issuer; leave it out, so that discovery finds the keys of each"))
	}
	return faults
}
