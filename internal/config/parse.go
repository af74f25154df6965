package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/posthorn/posthorn/internal/secretbox"
)

// IsPostgres reports whether a store's path, as [StorePath] returns it, is the
// URL of a PostgreSQL database.
func IsPostgres(path string) bool {
	return strings.HasPrefix(path, "postgres://") || strings.HasPrefix(path, "postgresql://")
}

// ShownStore is a store's path as it may be printed: without password or options.
func ShownStore(path string) string {
	if !IsPostgres(path) {
		return path
	}
	u, err := url.Parse(path)
	if err != nil {
		return "postgres://***"
	}
	if u.RawQuery = ""; u.User != nil {
		u.User = url.User("***")
	}
	return u.String()
}

// StorePath returns the file of a store given as "sqlite:PATH", or the URL of one
// on PostgreSQL.
func StorePath(text string) (string, error) {
	scheme, path, ok := strings.Cut(text, ":")
	switch {
	case !ok || len(scheme) < 2: // one letter is a Windows drive
		return "", fmt.Errorf("a store is sqlite:PATH, so write sqlite:%s", text)
	case scheme == "postgres" || scheme == "postgresql":
		if !IsPostgres(text) {
			return "", errors.New("a PostgreSQL store is postgres://USER@HOST:PORT/DATABASE")
		}
		if u, err := url.Parse(text); err != nil || strings.Trim(u.Path, "/") == "" {
			return "", errors.New("a PostgreSQL store is postgres://USER@HOST:PORT/DATABASE; special characters of a password are written as %XX")
		}
		return text, nil
	case scheme != "sqlite":
		return "", fmt.Errorf("there is no store of the kind %q; use sqlite:PATH or postgres://…", scheme)
	case path == "" || path == ":memory:":
		return "", errors.New("the store needs a file: sqlite:PATH")
	case strings.HasPrefix(path, "//"):
		return "", errors.New("sqlite: is followed by a path, not by //")
	case strings.ContainsAny(path, "?\x00"):
		return "", errors.New("the store's path may not hold a question mark")
	}
	return path, nil
}

func parseListen(v string, to *string) error {
	host, port, err := net.SplitHostPort(v)
	if err != nil {
		return fmt.Errorf("%q is not an address; write HOST:PORT, as in 127.0.0.1:8420 (or :8420 for all of this machine's)", v)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port; use a number from 0 to 65535", port)
	} else if strings.ContainsAny(host, " /") {
		return fmt.Errorf("%q is not a host", host)
	} else {
		*to = net.JoinHostPort(host, strconv.FormatUint(n, 10))
	}
	return nil
}

func parseListenOrOff(v string, to *string) error {
	if v == "off" {
		*to = ""
		return nil
	}
	return parseListen(v, to)
}

func parseBool(v string, to *bool) (err error) {
	switch strings.ToLower(v) {
	case "true", "yes", "on", "1":
		*to = true
	case "false", "no", "off", "0":
		*to = false
	default:
		return fmt.Errorf("%q is neither true nor false", v)
	}
	return nil
}

func parseInt(v string, low, high int, to *int) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		return fmt.Errorf("%q is not a whole number from %d to %d", v, low, high)
	}
	*to = n
	return nil
}

// sizeUnits are powers of 1,024.
var sizeUnits = []string{"KiB", "MiB", "GiB", "TiB"}

// maxSize is a petabyte.
const maxSize = 1 << 50

// parseSize reads a number of bytes, with a unit or without one.
func parseSize(v string, to *int64) error {
	number, scale := strings.TrimSpace(v), int64(1)
	for i, unit := range sizeUnits {
		if n, ok := strings.CutSuffix(number, unit); ok {
			number, scale = strings.TrimSpace(n), 1<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || n > maxSize/scale {
		return errors.New("must be a number of bytes, or one of KiB, MiB, GiB or TiB such as 10GiB, up to 1024TiB; 0 for none")
	}
	*to = n * scale
	return nil
}

func parseFloat(v string, low, high float64, to *float64) error {
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || !(f >= low && f <= high) { // refuses NaN too
		return fmt.Errorf("%q is not a number from %v to %v", v, low, high)
	}
	*to = f
	return nil
}

func oneOf(v string, to *string, allowed ...string) error {
	if !slices.Contains(allowed, v) {
		return fmt.Errorf("%q is none of %s", v, strings.Join(allowed, ", "))
	}
	*to = v
	return nil
}

func parseLevel(v string, to *slog.Level) error {
	var name string
	if err := oneOf(strings.ToLower(v), &name, "debug", "info", "warn", "error"); err != nil {
		return err
	}
	return to.UnmarshalText([]byte(name))
}

// items splits a list at commas; an empty text is an empty list.
func items(v string) []string {
	var all []string
	for item := range strings.SplitSeq(v, ",") {
		if item = strings.TrimSpace(item); item != "" {
			all = append(all, item)
		}
	}
	return all
}

func parsePrefixes(v string, to *[]netip.Prefix) error {
	var prefixes []netip.Prefix
	for _, item := range items(v) {
		p, err := parsePrefix(item)
		if err != nil {
			return err
		}
		prefixes = append(prefixes, p)
	}
	*to = prefixes
	return nil
}

func parsePrefix(item string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(item); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(item)
	switch {
	case err != nil:
		return p, fmt.Errorf("%q is not a network; write one as 10.1.0.0/16 or fd00::/8", item)
	case p.Addr().Is4In6():
		return p, fmt.Errorf("%q hides an IPv4 network; write it as one", item)
	case p != p.Masked():
		return p, fmt.Errorf("%q has bits behind its length; did you mean %s?", item, p.Masked())
	}
	return p, nil
}

// Addresses of the machine's own network segment and of cloud metadata: a slip
// here hands out the machine's credentials, so they open one by one only.
var delicate = []netip.Prefix{
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("fd00:ec2::/32"),
}

func parseDestinations(v string, to *[]netip.Prefix) error {
	if err := parsePrefixes(v, to); err != nil {
		return err
	}
	for _, p := range *to {
		for _, d := range delicate {
			if d.Contains(p.Addr()) && p.Bits() >= d.Bits() && !p.IsSingleIP() {
				return fmt.Errorf("%s holds link-local or metadata addresses, which open only one by one: write them as /%d", p, p.Addr().BitLen())
			}
		}
	}
	return nil
}

func parseProxy(v string, to **url.URL) error {
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return errors.New("the proxy is not a URL; write http://HOST:PORT") // err may quote a password
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return errors.New("the proxy is written http://HOST:PORT or https://HOST:PORT")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.Fragment != "":
		return errors.New("the proxy's URL ends with its port")
	}
	*to = u
	return nil
}

func parsePublicURLs(v string, to *[]string) error {
	var all []string
	for _, item := range items(v) {
		var one string
		if err := parsePublicURL(item, &one); err != nil {
			return err
		}
		all = append(all, one)
	}
	*to = all
	return nil
}

func parsePublicURL(v string, to *string) error {
	u, err := url.Parse(v)
	switch {
	case err != nil:
		return errors.New("it is not a URL; write https://HOST")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
		return fmt.Errorf("%q is not the URL of a site; write https://HOST", redactURL(v))
	case u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("it may hold neither user, query nor fragment")
	case strings.ContainsFunc(u.Hostname(), func(c rune) bool { return c > unicode.MaxASCII }):
		return fmt.Errorf("%q has a host with other letters than browsers send; write its form that begins with xn--", redactURL(v))
	}
	*to = strings.TrimRight(u.String(), "/")
	return nil
}

// readable finds out at the start what would else fail later.
func readable(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil {
		return err
	} else if info.IsDir() {
		return fmt.Errorf("%s is a directory, not a file", path)
	}
	return nil
}

func (c *Config) readKeysFile(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	keys := strings.Join(strings.Fields(string(b)), ",")
	if keys == "" {
		return fmt.Errorf("%s is empty; write the output of \"posthorn key generate\" to it", path)
	}
	if c.EncryptionKeys != "" {
		return errors.New("encryption-keys is given too; keep one of the two")
	}
	return c.setKeys(keys)
}

func (c *Config) setKeys(keys string) error {
	if _, err := secretbox.ParseKeys(keys); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), secretbox.EnvironmentVariable+": ")) // where it stands is said before
	}
	c.EncryptionKeys = keys
	return nil
}

func parseSchedule(v string, to *[]time.Duration) error {
	*to = nil
	if v == "none" {
		return nil
	}
	var total time.Duration
	for _, item := range items(v) {
		d, err := ParseDuration(item)
		switch {
		case err != nil:
			return err
		case d <= 0 || d > maxWait:
			return fmt.Errorf("the wait %s is not within 24h", item)
		}
		*to = append(*to, d)
		total += d
	}
	switch {
	case len(*to) == 0:
		return errors.New("the schedule is empty; write none for no retries")
	case len(*to) > maxWaits:
		return fmt.Errorf("the schedule has %d waits; at most %d are allowed", len(*to), maxWaits)
	case total > maxSchedule:
		return fmt.Errorf("the schedule takes %s; at most %s are allowed", FormatDuration(total), FormatDuration(maxSchedule))
	}
	return nil
}

const (
	maxWait     = 24 * time.Hour
	maxWaits    = 20
	maxSchedule = 7 * day
)
