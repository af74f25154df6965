package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Sources is where [Load] and [LoadDev] look.
type Sources struct {
	// File is the YAML file that the user named; empty for the first of
	// DefaultFiles that exists.
	File         string
	DefaultFiles []string
	// Environ is as [os.Environ] returns it.
	Environ []string
	// Flags holds what [AddFlags] added, parsed; nil for none.
	Flags *pflag.FlagSet
}

// DefaultFiles are read when no file is named: the first that exists.
func DefaultFiles() []string {
	return []string{"posthorn.yaml", filepath.FromSlash("/etc/posthorn/posthorn.yaml")}
}

// Load gathers the settings of "posthorn serve" and validates them. The error
// joins everything that is wrong; the Config is returned with it, for showing.
func Load(src Sources) (Config, error) {
	var d Dev
	err := d.load(src, false, Settings(false))
	return d.Config, errors.Join(err, d.requireKey(), d.Validate())
}

// LoadDev gathers the settings of "posthorn dev". A file is read only if it is
// named: the demo shall not open a production store.
func LoadDev(src Sources) (Dev, error) {
	src.DefaultFiles = nil
	var d Dev
	err := d.load(src, true, Settings(true))
	return d, errors.Join(err, d.Validate())
}

// LoadStore returns the store's file only, for commands that need nothing else:
// what is wrong with other settings is not their business.
func LoadStore(src Sources) (string, error) {
	store, _ := Lookup(KeyStore)
	var d Dev
	err := d.load(src, false, []Setting{store})
	return d.StorePath, err
}

// LoadKeys returns the store's file and the encryption keys, which must be there.
func LoadKeys(src Sources) (store, keys string, err error) {
	var wanted []Setting
	for _, name := range []string{KeyStore, KeyEncryptionKeys, keyEncryptionKeysFile} {
		s, _ := Lookup(name)
		wanted = append(wanted, s)
	}
	var d Dev
	err = d.load(src, false, wanted)
	return d.StorePath, d.EncryptionKeys, errors.Join(err, d.requireKey())
}

func (d *Dev) load(src Sources, dev bool, wanted []Setting) error {
	d.origins, d.raw = map[string]string{}, map[string]string{}
	var faults []error
	values := koanf.New(delimiter)
	for _, read := range []func(Sources, bool) (layer, error){defaults, d.fromFile, fromEnviron, fromFlags} {
		l, err := read(src, dev)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		for _, key := range l.values.Keys() {
			if _, known := Lookup(key); !known {
				faults = append(faults, unknown(l, key))
				continue
			}
			if l.origin != originDefault {
				d.origins[key] = l.name(key)
			}
		}
		if err := values.Merge(l.values); err != nil {
			faults = append(faults, err)
		}
	}
	for _, s := range wanted {
		text, err := asText(values.Get(s.Name), s.list)
		if err == nil {
			d.raw[s.Name] = text
			err = d.apply(s, text)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", d.blame(s.Name), err))
			d.raw[s.Name] = ""
			_ = d.apply(s, s.Default) // one fault shall not look like two in Validate
		}
	}
	return errors.Join(faults...)
}

func (d *Dev) apply(s Setting, text string) error {
	switch {
	case text == "":
		return nil
	case s.dev != nil:
		return s.dev(d, text)
	}
	return s.set(&d.Config, text)
}

// blame names a setting and where its value came from.
func (d *Dev) blame(setting string) string {
	o := d.Origin(setting)
	if o == d.File && o != "" {
		return o + ": " + setting
	}
	if o == originDefault {
		return setting
	}
	return o
}

// delimiter splits nested keys; no setting is nested, so that one shows as
// unknown.
const delimiter = "."

// layer is what one source says.
type layer struct {
	values *koanf.Koanf
	origin string // the file's path, "flags", "environment" or originDefault
}

// name is the origin of one setting of the layer.
func (l layer) name(key string) string {
	switch l.origin {
	case originFlags:
		return "--" + key
	case originEnviron:
		return l.spell(key)
	}
	return l.origin
}

// spell writes a setting the way the layer does.
func (l layer) spell(key string) string {
	if l.origin == originEnviron {
		return Setting{Name: key}.Env()
	}
	return key
}

const (
	originFlags   = "flags"
	originEnviron = "environment"
)

func defaults(_ Sources, dev bool) (layer, error) {
	m := map[string]any{}
	for _, s := range Settings(dev) {
		if s.Default != "" {
			m[s.Name] = s.Default
		}
	}
	return fromMap(m, originDefault)
}

func fromMap(m map[string]any, origin string) (layer, error) {
	k := koanf.New(delimiter)
	err := k.Load(confmap.Provider(m, delimiter), nil)
	return layer{k, origin}, err
}

func (d *Dev) fromFile(src Sources, _ bool) (layer, error) {
	path, err := chooseFile(src)
	l := layer{koanf.New(delimiter), path}
	if err != nil || path == "" {
		return l, err
	}
	d.File = path
	if err := l.values.Load(file.Provider(path), yaml.Parser()); err != nil {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n")
		return l, fmt.Errorf("%s: %s", path, strings.Join(strings.Fields(text), " "))
	}
	return l, nil
}

func chooseFile(src Sources) (string, error) {
	if src.File != "" {
		return src.File, readable(src.File)
	}
	for _, path := range src.DefaultFiles {
		err := readable(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return path, err
	}
	return "", nil
}

// outside are the variables that begin like ours and are no settings of the
// service: those of the command line's other commands.
var outside = []string{"CONFIG", "SERVER", "TOKEN", "TOKEN_FILE", "TENANT", "CONTEXT", "WEBHOOK_SECRET"}

// serviceLink matches what Kubernetes and Docker put into the environment of a
// container that runs beside a service called posthorn.
var serviceLink = regexp.MustCompile(`(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

func fromEnviron(src Sources, _ bool) (layer, error) {
	k := koanf.New(delimiter)
	environ := src.Environ
	if environ == nil {
		environ = []string{}
	}
	err := k.Load(env.Provider("", env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: func() []string { return environ },
		TransformFunc: func(name, value string) (string, any) {
			name = strings.TrimPrefix(name, EnvPrefix)
			if value == "" || slices.Contains(outside, name) || serviceLink.MatchString(name) {
				return "", nil
			}
			return strings.ReplaceAll(strings.ToLower(name), "_", "-"), value
		},
	}), nil)
	return layer{k, originEnviron}, err
}

func fromFlags(src Sources, dev bool) (layer, error) {
	m := map[string]any{}
	if src.Flags != nil {
		for _, s := range Settings(dev) {
			if f := src.Flags.Lookup(s.Name); f != nil && f.Changed {
				m[s.Name] = f.Value.String()
			}
		}
	}
	return fromMap(m, originFlags)
}

// asText turns a value of the file into what a flag would say.
func asText(v any, list bool) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return strings.TrimSpace(v), nil
	case bool, int, int64, uint64, float64:
		return fmt.Sprint(v), nil
	case []any:
		if !list {
			return "", errors.New("is a list, but takes one value")
		}
		texts := make([]string, len(v))
		for i, item := range v {
			text, err := asText(item, false)
			if err != nil {
				return "", err
			}
			texts[i] = text
		}
		return strings.Join(texts, ","), nil
	case time.Time:
		return "", errors.New("YAML reads this as a date; put it in quotes")
	}
	return "", errors.New("takes a single value, not a group of keys")
}

// requireKey tells how to get an encryption key when there is none.
func (c *Config) requireKey() error {
	if c.EncryptionKeys != "" || c.Chosen(KeyEncryptionKeys) || c.Chosen(keyEncryptionKeysFile) {
		return nil
	}
	return fmt.Errorf("%[1]s is not set: endpoint secrets are kept encrypted. Make a key with \"posthorn key generate\", set %[1]s to it, and keep a copy: without it the secrets are lost",
		Setting{Name: KeyEncryptionKeys}.Env())
}

// Validate returns everything that is wrong with settings that are each well
// formed but do not go together, joined; nil if nothing is.
func (c *Config) Validate() error {
	var faults []error
	add := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if (c.TLSCert == "") != (c.TLSKey == "") {
		add("tls-cert and tls-key go together; give both or neither")
	}
	if c.OpsListen != "" && c.OpsListen == c.Listen && !strings.HasSuffix(c.Listen, ":0") {
		add("ops-listen: %s is the address of the API too; choose another port, or off", c.OpsListen)
	}
	if c.Retention < time.Hour || c.Retention > maxRetention {
		add("retention: %s is not within 1h and %s", FormatDuration(c.Retention), FormatDuration(maxRetention))
	}
	c.checkRetention(add)
	if c.AuditRetention < day || c.AuditRetention > maxRetention {
		add("audit-retention: %s is not within 1d and %s", FormatDuration(c.AuditRetention), FormatDuration(maxRetention))
	}
	var total time.Duration
	for _, wait := range c.RetrySchedule {
		total += wait
	}
	if total >= c.Retention {
		add("retry-schedule: the waits take %s, but events are kept for %s only; shorten the schedule or raise retention",
			FormatDuration(total), FormatDuration(c.Retention))
	} else if open := c.RetainOpen(); total >= open {
		add("retry-schedule: the waits take %s, but payloads and deliveries are kept for %s only; shorten the schedule or raise retain-payloads and retain-deliveries",
			FormatDuration(total), FormatDuration(open))
	}
	faults = append(faults, c.checkOIDC()...)
	if c.ShutdownDelay > maxShutdownDelay {
		add("shutdown-delay: %s is longer than %s; a load balancer that needs longer to notice must be asked to look more often",
			FormatDuration(c.ShutdownDelay), FormatDuration(maxShutdownDelay))
	}
	if c.DrainTimeout > time.Hour {
		add("drain-timeout: %s is longer than 1h", FormatDuration(c.DrainTimeout))
	}
	return errors.Join(faults...)
}

// checkRetention fills in what was not given: as long as what it belongs to.
func (c *Config) checkRetention(add func(format string, args ...any)) {
	for _, r := range []struct {
		name, whole string
		d           *time.Duration
		at          time.Duration
	}{
		{"retain-payloads", "retention", &c.RetainPayloads, c.Retention},
		{"retain-deliveries", "retention", &c.RetainDeliveries, c.Retention},
		{"retain-attempts", "retain-deliveries", &c.RetainAttempts, 0},
	} {
		if r.at == 0 {
			r.at = c.RetainDeliveries
		}
		switch {
		case *r.d == 0 && !c.Chosen(r.name):
			*r.d = r.at
		case *r.d < time.Hour:
			add("%s: %s is less than 1h", r.name, FormatDuration(*r.d))
			*r.d = r.at // one fault shall not look like two
		case *r.d > r.at:
			add("%s: %s is longer than %s, %s; what it belongs to is gone by then", r.name, FormatDuration(*r.d), r.whole, FormatDuration(r.at))
		}
	}
}

// RetainOpen is how long a delivery can wait: without payload or row it cannot be
// sent.
func (c *Config) RetainOpen() time.Duration { return min(c.RetainPayloads, c.RetainDeliveries) }

const (
	maxRetention     = 10 * 365 * day
	maxShutdownDelay = 10 * time.Minute
)

// unknown says that the layer has a key that is no setting, and which one the
// user may have meant.
func unknown(l layer, key string) error {
	names := make([]string, len(settings))
	for i, s := range settings {
		names[i] = s.Name
	}
	hint := "\"posthorn serve --help\" lists all"
	if near := Nearest(strings.ReplaceAll(strings.ToLower(key), "_", "-"), names); near != "" {
		hint = fmt.Sprintf("did you mean %s?", l.spell(near))
	}
	where := ""
	if l.origin != originEnviron {
		where = l.origin + ": "
	}
	return fmt.Errorf("%s%s is not a setting; %s", where, l.spell(key), hint)
}

// AddFlags adds a flag for each of the settings.
func AddFlags(fs *pflag.FlagSet, some ...Setting) {
	for _, s := range some {
		fs.VarP(&flagValue{setting: s, text: s.Default}, s.Name, "", s.Help)
		if s.Switch() {
			fs.Lookup(s.Name).NoOptDefVal = "true"
		}
		if s.Secret {
			fs.Lookup(s.Name).DefValue = ""
		}
	}
}

// flagValue keeps a flag's text as it is: [Load] makes sense of it, so that a
// fault reads the same wherever the value stands.
type flagValue struct {
	setting Setting
	text    string
	given   bool
}

func (v *flagValue) String() string { return v.text }

// Type is what help texts show behind the flag.
func (v *flagValue) Type() string {
	if v.setting.Switch() {
		return "bool" // pflag's word for a flag that needs no value
	}
	return v.setting.Arg
}

func (v *flagValue) Set(text string) error {
	if text == "" {
		return errors.New("the value is empty")
	}
	if v.setting.list && v.given {
		text = v.text + "," + text
	}
	v.text, v.given = text, true
	return nil
}
