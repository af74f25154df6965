package config

import (
	"fmt"
	"slices"
	"strings"

	"github.com/posthorn/posthorn"
)

// Setting is one thing that an operator can set. Its name is the file's key and,
// behind two dashes, the flag; in capitals, with underscores and behind
// POSTHORN_, it is the environment variable.
type Setting struct {
	Name string
	// Arg stands for the value in help texts; empty for a switch.
	Arg string
	// Default is the text that holds when nothing is given.
	Default string
	// DevDefault replaces Default in "posthorn dev", where it differs.
	DevDefault string
	// Help is one line without a full stop.
	Help string
	// More says what one line cannot; for the documentation.
	More string
	// Secret values are never printed.
	Secret bool

	list bool // values may come as a YAML list or a repeated flag
	for_ audience
	set  func(*Config, string) error
	dev  func(*Dev, string) error // instead of set, for what only dev has
}

type audience uint8

const (
	forServe audience = 1 << iota
	forDev
	forBoth = forServe | forDev
)

// Env is the setting's environment variable.
func (s Setting) Env() string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Switch reports whether the setting is on or off and needs no value as a flag.
func (s Setting) Switch() bool { return s.Arg == "" }

// EnvPrefix begins all environment variables of Posthorn.
const EnvPrefix = "POSTHORN_"

// The settings whose names other code needs.
const (
	KeyListen         = "listen"
	KeyOpsListen      = "ops-listen"
	KeyStore          = "store"
	KeyEncryptionKeys = "encryption-keys"

	keyEncryptionKeysFile = "encryption-keys-file"
)

// Settings returns those of "posthorn serve" or of "posthorn dev", in the order
// in which they are documented.
func Settings(dev bool) []Setting {
	want := forServe
	if dev {
		want = forDev
	}
	var some []Setting
	for _, s := range settings {
		if s.for_&want != 0 {
			some = append(some, s.in(dev))
		}
	}
	return some
}

// in resolves the default.
func (s Setting) in(dev bool) Setting {
	if dev && s.DevDefault != "" {
		s.Default = s.DevDefault
	}
	return s
}

// Lookup returns the setting with the name.
func Lookup(name string) (Setting, bool) {
	i := slices.IndexFunc(settings, func(s Setting) bool { return s.Name == name })
	if i < 0 {
		return Setting{}, false
	}
	return settings[i], true
}

// renewed says of a file's setting that package renew looks after it.
const renewed = "Read again when it changes, and at once on SIGHUP; one that is missing or not good changes nothing (operating.md, \"Files that are renewed\")."

// DefaultStore is where the store is unless the user says otherwise.
const DefaultStore = "sqlite:./posthorn.db"

var settings = []Setting{
	{Name: KeyListen, Arg: "HOST:PORT", Default: "127.0.0.1:8420", for_: forBoth,
		Help: "address of the API and the dashboard",
		More: "Port 0 takes a free one. `dev` takes the next free port when its default is taken.",
		set:  func(c *Config, v string) error { return parseListen(v, &c.Listen) }},
	{Name: KeyOpsListen, Arg: "HOST:PORT|off", Default: "127.0.0.1:8421", for_: forBoth,
		Help: "address of /metrics, or off",
		set:  func(c *Config, v string) error { return parseListenOrOff(v, &c.OpsListen) }},
	{Name: "pprof", Default: "false", for_: forBoth,
		Help: "serve Go's profiles at /debug/pprof/ on ops-listen",
		More: "For whoever looks for a fault or tunes; a profile shows nothing of payloads, but costs processor time while it is taken.",
		set:  func(c *Config, v string) error { return parseBool(v, &c.Pprof) }},
	{Name: KeyStore, Arg: "sqlite:PATH|postgres://…", Default: DefaultStore, for_: forServe,
		Help: "where everything is kept",
		More: "The file is made, readable by its owner only, if it is not there. A relative path counts from the working directory. On PostgreSQL 15 or newer several nodes share one database; give an address with a password as `POSTHORN_STORE` or by the file, as other users of the machine can read flags. The files that the address names (certificates, authorities, passwords) are read again when they change.",
		set: func(c *Config, v string) (err error) {
			c.StorePath, err = StorePath(v)
			return err
		}},
	{Name: KeyEncryptionKeys, Arg: "ID:BASE64,...", for_: forServe, Secret: true, list: true,
		Help: "keys that encrypt endpoint secrets; required (better in the environment or a file)",
		More: "The first key encrypts, all decrypt. `posthorn key generate` prints one. To rotate, put a new key first and keep the old ones. Other users of the machine can read flags: give it as `POSTHORN_ENCRYPTION_KEYS` or by `encryption-keys-file`.",
		set:  (*Config).setKeys},
	{Name: keyEncryptionKeysFile, Arg: "FILE", for_: forServe,
		Help: "file that holds the encryption keys",
		More: "One line as in `encryption-keys`, or one key a line. Only one of the two may be given.",
		set:  (*Config).readKeysFile},
	{Name: "allow-http", Default: "false", DevDefault: "true", for_: forBoth,
		Help: "let endpoints have http URLs",
		set:  func(c *Config, v string) error { return parseBool(v, &c.AllowHTTP) }},
	{Name: "allow-underscore-hosts", Default: "false", for_: forBoth,
		Help: "let endpoints have host names with underscores",
		More: "They are no host names after RFC 1123, and most certificate authorities issue nothing for them; some closed networks use them all the same.",
		set:  func(c *Config, v string) error { return parseBool(v, &c.AllowUnderscoreHosts) }},
	{Name: "allow-private", Arg: "CIDR,...", DevDefault: "127.0.0.0/8,::1/128", for_: forBoth, list: true,
		Help: "networks that are not public and may be sent to",
		More: "On any port. Link-local and cloud metadata addresses open only one by one, as /32 or /128. An IPv6 address that carries an IPv4 one (NAT64, 6to4) opens only if that is open or public too. Posthorn's own listeners never do.",
		set:  func(c *Config, v string) error { return parseDestinations(v, &c.AllowPrivate) }},
	{Name: "egress-proxy", Arg: "URL", for_: forServe,
		Help: "proxy that all deliveries go through, by CONNECT",
		More: "The proxy must refuse private addresses itself, as smokescreen does. HTTP_PROXY and HTTPS_PROXY are never read.",
		set:  func(c *Config, v string) error { return parseProxy(v, &c.EgressProxy) }},
	{Name: "egress-ca", Arg: "FILE", for_: forBoth,
		Help: "PEM file with more authorities that receivers' certificates may have",
		More: renewed,
		set:  func(c *Config, v string) error { c.EgressCA = v; return readable(v) }},
	{Name: "public-url", Arg: "URL,...", for_: forServe, list: true,
		Help: "where users reach the service; the first makes links",
		More: "Pages, and a service that listens on loopback, answer requests for these hosts, for `localhost` and for addresses; others are 421. So a proxy on the same machine that passes the `Host` on needs it.",
		set:  func(c *Config, v string) error { return parsePublicURLs(v, &c.PublicURLs) }},
	{Name: "trusted-proxy", Arg: "CIDR,...", for_: forServe, list: true,
		Help: "reverse proxies whose X-Forwarded-For is believed",
		set:  func(c *Config, v string) error { return parsePrefixes(v, &c.TrustedProxies) }},
	{Name: "tls-cert", Arg: "FILE", for_: forServe,
		Help: "PEM file with the certificate to serve TLS with",
		More: renewed,
		set:  func(c *Config, v string) error { c.TLSCert = v; return readable(v) }},
	{Name: "tls-key", Arg: "FILE", for_: forServe,
		Help: "PEM file with the certificate's key",
		More: renewed,
		set:  func(c *Config, v string) error { c.TLSKey = v; return readable(v) }},
	{Name: "oidc-issuer", Arg: "URL,...", for_: forServe, list: true,
		Help: "identity providers whose JWTs are taken as bearer tokens",
		More: "As the tokens' `iss` names them; https, or http on loopback. Keys come by OpenID Connect discovery. Every issuer may speak for every tenant. See access.md.",
		set:  func(c *Config, v string) error { return parseIssuers(v, &c.OIDCIssuers) }},
	{Name: "oidc-audience", Arg: "NAME,...", for_: forServe, list: true,
		Help: "a JWT's aud must name one of these; required with oidc-issuer",
		set:  func(c *Config, v string) error { c.OIDCAudiences = items(v); return nil }},
	{Name: "oidc-jwks-url", Arg: "URL", for_: forServe,
		Help: "where the issuer's keys are, instead of discovery",
		More: "Only with one issuer.",
		set:  func(c *Config, v string) error { c.OIDCJWKSURL = v; return checkProviderURL(v) }},
	{Name: "oidc-tenant-claim", Arg: "CLAIM", Default: "tenant", for_: forServe,
		Help: "claim that holds the tenant's name",
		More: "A dot leads into a nested claim, unless a claim has the whole name.",
		set:  func(c *Config, v string) error { c.OIDCTenantClaim = v; return nil }},
	{Name: "oidc-scope-claim", Arg: "CLAIM", Default: "scope", for_: forServe,
		Help: "claim that holds the scopes, as a list or a text with spaces",
		More: "As `scp`, `roles` or `resource_access.posthorn.roles`.",
		set:  func(c *Config, v string) error { c.OIDCScopeClaim = v; return nil }},
	{Name: "oidc-scope-map", Arg: "NAME=SCOPE,...", for_: forServe, list: true,
		Help: "what the provider's names of scopes or roles mean here",
		More: "Names that are not listed stand for themselves, and those that are no scope are left out.",
		set:  func(c *Config, v string) error { return parseScopeMap(v, &c.OIDCScopeMap) }},
	{Name: "oidc-ca", Arg: "FILE", for_: forServe,
		Help: "PEM file with more authorities that identity providers' certificates may have",
		More: renewed,
		set:  func(c *Config, v string) error { c.OIDCCA = v; return readable(v) }},
	{Name: "retention", Arg: "DURATION", Default: "30d", for_: forBoth,
		Help: "how long events are kept, with all that belongs to them",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.Retention) }},
	{Name: "retain-payloads", Arg: "DURATION", for_: forBoth,
		Help: "how long payloads are kept, if not as long as events",
		More: "An event whose payload is gone stays in the log and is not sent again; what still waits then has expired.",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.RetainPayloads) }},
	{Name: "retain-deliveries", Arg: "DURATION", for_: forBoth,
		Help: "how long deliveries are kept, if not as long as events",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.RetainDeliveries) }},
	{Name: "retain-attempts", Arg: "DURATION", for_: forBoth,
		Help: "how long attempts are kept, with what receivers answered, if not as long as deliveries",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.RetainAttempts) }},
	{Name: "audit-retention", Arg: "DURATION", Default: "365d", for_: forBoth,
		Help: "how long the audit is kept",
		More: "Who changed what, before and after: see access.md.",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.AuditRetention) }},
	{Name: "retry-schedule", Arg: "DURATION,...", Default: FormatDurations(posthorn.DefaultSchedule()), for_: forBoth, list: true,
		Help: "waits between failed attempts, or none",
		More: "At most 20 waits of at most 24h, 7d in all. Endpoints may have their own.",
		set:  func(c *Config, v string) error { return parseSchedule(v, &c.RetrySchedule) }},
	{Name: "retry-jitter", Arg: "SHARE", Default: fmt.Sprint(posthorn.DefaultJitter), for_: forBoth,
		Help: "share by which each wait varies, 0 to 1",
		set:  func(c *Config, v string) error { return parseFloat(v, 0, 1, &c.RetryJitter) }},
	{Name: "max-in-flight", Arg: "N", Default: "4096", for_: forBoth,
		Help: "attempts at a time, of all endpoints",
		More: "Each takes a connection: the limit of open files must be higher.",
		set:  func(c *Config, v string) error { return parseInt(v, 1, 65_536, &c.MaxInFlight) }},
	{Name: "host-in-flight", Arg: "N", Default: "1024", for_: forBoth,
		Help: "attempts at a time of a tenant to one host, on each node; 0 for no limit",
		More: "A host is a name or an address, on whatever port. What exceeds it waits, in memory or in the store; other hosts' and other tenants' attempts go on.",
		set:  func(c *Config, v string) error { return parseInt(v, 0, 65_536, &c.HostInFlight) }},
	{Name: "host-rate", Arg: "N", Default: "2000", for_: forBoth,
		Help: "attempts a second of a tenant to one host, on each node; 0 for no limit",
		More: "It keeps a tenant with many endpoints from turning a few requests into a flood of somebody's host.",
		set:  func(c *Config, v string) error { return parseInt(v, 0, 1_000_000, &c.HostRate) }},
	{Name: "backlog-limit", Arg: "N", Default: "1000000", for_: forBoth,
		Help: "waiting deliveries a tenant may have; more are stored as expired",
		set:  func(c *Config, v string) error { return parseInt(v, 1, 1_000_000_000, &c.BacklogLimit) }},
	{Name: "max-endpoints", Arg: "N", Default: "1000", for_: forBoth,
		Help: "endpoints a tenant may have",
		set:  func(c *Config, v string) error { return parseInt(v, 1, 1_000_000, &c.MaxEndpoints) }},
	{Name: "tenant-bytes", Arg: "SIZE", Default: "0", for_: forBoth,
		Help: "what a tenant may keep at most; 0 for no bound",
		More: "Payloads, and 256 bytes for each event and delivery. What goes beyond is answered 429 until retention or erasure made room. Without a bound, and beside one, tenants share: while less than twice the reserve is free (the reserve is 5 % or 1 GiB, whichever is less), those that keep more than an equal share are answered 429. Such as 10GiB.",
		set:  func(c *Config, v string) error { return parseSize(v, &c.TenantBytes) }},
	{Name: "store-bytes", Arg: "SIZE", Default: "0", for_: forServe,
		Help: "how large the PostgreSQL database may grow; 0 for unknown",
		More: "A node cannot ask a database server for its disk. With this it knows what is left, shares that among tenants as on a disk, and refuses publishing (503) below 5 % or 1 GiB, whichever is less, so that what was accepted can still be finished. Say less than the disk has: it also holds the write-ahead log. Such as 200GiB; the same for all nodes. With a SQLite file the disk itself is asked.",
		set:  func(c *Config, v string) error { return parseSize(v, &c.StoreBytes) }},
	{Name: "publish-rate", Arg: "N", Default: "0", for_: forBoth,
		Help: "events a second that a tenant may publish; 0 for no limit",
		set:  func(c *Config, v string) error { return parseFloat(v, 0, 1_000_000, &c.PublishRate) }},
	{Name: "token-rate", Arg: "N", Default: "0", for_: forBoth,
		Help: "requests a second that a token may send; 0 for no limit",
		More: "Up to a second's worth at once; what goes beyond is answered 429 with Retry-After. It counts every request, a platform's token too: leave it off, or above what your publisher needs.",
		set:  func(c *Config, v string) error { return parseFloat(v, 0, 1_000_000, &c.TokenRate) }},
	{Name: "max-connections", Arg: "N", Default: "4096", for_: forBoth,
		Help: "connections to the API at a time",
		More: "They are shared by tenant, by address until a request says whose they are. At the limit a new one takes the place of one of the party that has most: one that waits for a request or its headers, else one whose body is still coming, else one whose answer is not read. As many requests may be under way at a time, three quarters of them of one tenant; more are answered 429. The limit of open files must be higher than this and max-in-flight together.",
		set:  func(c *Config, v string) error { return parseInt(v, 16, 1_000_000, &c.MaxConnections) }},
	{Name: "catalog", Arg: "FILE", for_: forBoth,
		Help: "file with event types that replace or extend the built-in ones",
		set:  func(c *Config, v string) error { c.Catalog = v; return readable(v) }},
	{Name: "log-level", Arg: "LEVEL", Default: "info", for_: forBoth,
		Help: "debug, info, warn or error",
		set:  func(c *Config, v string) error { return parseLevel(v, &c.LogLevel) }},
	{Name: "log-format", Arg: "FORMAT", Default: "auto", for_: forBoth,
		Help: "text, json, or auto: text on a terminal, else json",
		set:  func(c *Config, v string) error { return oneOf(v, &c.LogFormat, "auto", "text", "json") }},
	{Name: "shutdown-delay", Arg: "DURATION", Default: "2s", for_: forServe,
		Help: "how long a stop goes on serving while /readyz says 503, before the listener closes",
		More: "For the load balancer to notice: its interval times the failures it waits for, and a little. 0 where there is none. It comes before the drain-timeout; together they must be below the time after which a supervisor kills (Kubernetes: 30 s).",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.ShutdownDelay) }},
	{Name: "drain-timeout", Arg: "DURATION", Default: "25s", for_: forBoth,
		Help: "how long a stop waits for attempts in flight",
		More: "What is not done then is handed back and sent after the next start.",
		set:  func(c *Config, v string) error { return parseDuration(v, &c.DrainTimeout) }},
	{Name: "dir", Arg: "DIR", Default: "./.posthorn-dev", for_: forDev,
		Help: "where the demo keeps its data between runs",
		dev:  func(d *Dev, v string) error { d.Dir = v; return nil }},
	{Name: "samples", Arg: "DURATION", Default: "3s", for_: forDev,
		Help: "pause between two sample events; 0 for none",
		dev:  func(d *Dev, v string) error { return parseDuration(v, &d.Samples) }},
	{Name: "reset", Default: "false", for_: forDev,
		Help: "begin with an empty store",
		dev:  func(d *Dev, v string) error { return parseBool(v, &d.Reset) }},
}
