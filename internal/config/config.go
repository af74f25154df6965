// Package config gathers the settings of "posthorn serve" and "posthorn dev"
// from their defaults, a YAML file, the environment and flags, in that order of
// precedence. One table, see [Settings], is what flags, environment variables,
// file keys, help texts and docs/configuration.md are made from.
package config

import (
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// Config is everything that an operator can set. [Load] fills it.
type Config struct {
	// Listen is the host:port of the API and the dashboard.
	Listen string
	// OpsListen is the host:port of /metrics; empty for none.
	OpsListen string
	// Pprof serves /debug/pprof/ beside the metrics.
	Pprof bool
	// StorePath is the SQLite file or the URL of the PostgreSQL database, as it was
	// given; see [StorePath] and [IsPostgres].
	StorePath string
	// EncryptionKeys is a secret: id:base64[,id:base64…], the first encrypts.
	EncryptionKeys string

	AllowHTTP bool
	// AllowUnderscoreHosts lets the host names of endpoints have underscores.
	AllowUnderscoreHosts bool
	AllowPrivate         []netip.Prefix
	// EgressProxy is nil for none. It may hold a password.
	EgressProxy *url.URL
	// EgressCA is a PEM file with more authorities; empty for none.
	EgressCA string

	// PublicURLs are where users reach the service, without a slash at the end; the
	// first makes links.
	PublicURLs     []string
	TrustedProxies []netip.Prefix
	// TLSCert and TLSKey are PEM files; both or neither.
	TLSCert, TLSKey string

	// OIDCIssuers are the identity providers whose JWTs are taken; empty for none.
	OIDCIssuers   []string
	OIDCAudiences []string
	// OIDCJWKSURL is where the only issuer's keys are; empty for what discovery says.
	OIDCJWKSURL                     string
	OIDCTenantClaim, OIDCScopeClaim string
	// OIDCScopeMap turns the provider's names into scopes.
	OIDCScopeMap map[string]string
	// OIDCCA is a PEM file with more authorities of the providers; empty for none.
	OIDCCA string

	// Retention is how long events are kept; RetainPayloads, RetainDeliveries and
	// RetainAttempts what belongs to them. None is zero once it was loaded.
	Retention, RetainPayloads, RetainDeliveries, RetainAttempts time.Duration
	// AuditRetention is how long the audit is kept.
	AuditRetention time.Duration
	// RetrySchedule holds the waits between failed attempts; empty for no retries.
	RetrySchedule []time.Duration
	// RetryJitter is the share by which each wait varies, 0 to 1.
	RetryJitter float64
	// MaxInFlight bounds the attempts of the whole service at a time.
	MaxInFlight int
	// HostInFlight bounds a tenant's attempts at a time to one host, HostRate how many
	// start in a second; 0 for no limit.
	HostInFlight, HostRate int
	// BacklogLimit bounds the open deliveries of a tenant.
	BacklogLimit int
	// MaxEndpoints bounds the endpoints of a tenant.
	MaxEndpoints int
	// TenantBytes bounds what a tenant keeps; 0 for no bound. StoreBytes is the room of
	// a PostgreSQL database; 0 for unknown.
	TenantBytes, StoreBytes int64
	// PublishRate bounds the events a second of a tenant; 0 for no limit.
	PublishRate float64
	// TokenRate bounds the requests a second of a token; 0 for no limit.
	TokenRate float64
	// MaxConnections bounds the connections to the API.
	MaxConnections int
	// Catalog is the operator's event type file; empty for the built-in one.
	Catalog string

	LogLevel slog.Level
	// LogFormat is auto, text or json.
	LogFormat string
	// ShutdownDelay is how long a stop says that it is not ready and goes on serving
	// before the listener closes. Always 0 in "posthorn dev".
	ShutdownDelay time.Duration
	// DrainTimeout bounds the wait for attempts in flight at the end.
	DrainTimeout time.Duration

	// File is the configuration file that was read; empty for none.
	File string

	origins map[string]string // of the settings that were given: see Origin
	raw     map[string]string // the values as text
}

// Dev is what "posthorn dev" needs: the settings of a service whose defaults
// suit a laptop, and those of the demo around it.
type Dev struct {
	Config
	// Dir holds the store and the key between runs.
	Dir string
	// Samples is the pause between two sample events; 0 for none.
	Samples time.Duration
	// Reset empties Dir first.
	Reset bool
}

// Origin tells where the setting's value came from: "default", the file's
// path, the name of an environment variable or of a flag.
func (c *Config) Origin(setting string) string {
	if o, ok := c.origins[setting]; ok {
		return o
	}
	return originDefault
}

// ListenHere is where Listen is reached from this machine, as host:port; empty if it
// is no address.
func (c *Config) ListenHere() string {
	host, port, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return ""
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// Chosen reports whether the user gave the setting a value. A service on its
// default address may take another port; one on a chosen address may not.
func (c *Config) Chosen(setting string) bool { return c.Origin(setting) != originDefault }

const originDefault = "default"

// String lists all settings, one a line as "name: value", with secrets masked.
func (c *Config) String() string {
	var b strings.Builder
	for _, s := range settings {
		if s.for_&forServe == 0 {
			continue
		}
		b.WriteString(s.Name + ": " + c.Shown(s.Name) + "\n")
	}
	return b.String()
}

// LogValue keeps secrets out of logs.
func (c *Config) LogValue() slog.Value {
	attrs := make([]slog.Attr, 0, len(settings))
	for _, s := range settings {
		if s.for_&forServe != 0 {
			attrs = append(attrs, slog.String(s.Name, c.Shown(s.Name)))
		}
	}
	return slog.GroupValue(attrs...)
}

// Shown is the setting's value as text that may be printed: secrets are masked.
func (c *Config) Shown(setting string) string {
	text := c.raw[setting]
	s, ok := Lookup(setting)
	switch {
	case !ok, text == "":
		return text
	case s.Secret:
		return maskKeys(text)
	case setting == KeyStore:
		return ShownStore(text)
	case s.list:
		shown := items(text)
		for i, item := range shown {
			shown[i] = shownURL(item)
		}
		return strings.Join(shown, ",")
	}
	return shownURL(text)
}

// maskKeys leaves the ids of "id:base64,id:base64", which tell keys apart and
// give nothing away.
func maskKeys(text string) string {
	keys := strings.Split(text, ",")
	for i, k := range keys {
		id, _, ok := strings.Cut(k, ":")
		if !ok {
			id = ""
		}
		keys[i] = strings.TrimPrefix(id+":***", ":")
	}
	return strings.Join(keys, ",")
}

// redactURL masks the password of a URL, and all of a text that is not one.
func redactURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "***"
	}
	if u.User != nil {
		u.User = url.User("***")
	}
	return u.String()
}

// shownURL masks the password of a text that is a URL.
func shownURL(text string) string {
	if strings.Contains(text, "://") {
		return redactURL(text)
	}
	return text
}

// PublicURL makes links; empty if it is not known.
func (c *Config) PublicURL() string {
	if len(c.PublicURLs) == 0 {
		return ""
	}
	return c.PublicURLs[0]
}
