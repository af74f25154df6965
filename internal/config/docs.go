package config

import (
	"fmt"
	"strings"
)

// Markdown is the reference of all settings: docs/configuration.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# Settings

<!-- Made from internal/config/settings.go; "go test ./internal/config -update" writes it. -->

Each setting of ` + "`posthorn serve`" + ` can be a flag, an environment variable or a key of a
YAML file. They mean the same; a flag goes before the environment, the environment before
the file, the file before the default. The file is the one that ` + "`--config`" + ` or
` + "`POSTHORN_CONFIG`" + ` names, else ` + "`./posthorn.yaml`" + `, else ` + "`/etc/posthorn/posthorn.yaml`" + `.

- A key, a flag or a ` + "`POSTHORN_`" + ` variable that is not listed here is an error. (What
  Kubernetes puts into the environment for a service called posthorn is left alone.)
- An empty variable counts as not set.
- Lists are written with commas, in a file also as YAML lists; as flags they may be
  repeated.
- Durations are written ` + "`30s`, `15m`, `2h` or `7d`" + `.
- ` + "`posthorn config check`" + ` says what is wrong and prints what holds and why, without
  secrets. Wrong settings make ` + "`serve`" + ` exit with 2.

` + "```yaml" + `
# /etc/posthorn/posthorn.yaml
listen: 0.0.0.0:8420
store: sqlite:/var/lib/posthorn/posthorn.db
encryption-keys-file: /etc/posthorn/keys
public-url: https://hooks.example.com
trusted-proxy: [10.0.0.0/8]
` + "```" + `

| setting | environment | default | |
|---|---|---|---|
`)
	for _, s := range Settings(false) {
		writeRow(&b, s)
	}
	b.WriteString(`
## posthorn dev

` + "`dev`" + ` has settings of its own and other defaults for some; those that it does not list it
does not have. It reads a file only if ` + "`--config`" + ` names one.

| setting | environment | default | |
|---|---|---|---|
`)
	for _, s := range Settings(true) {
		writeRow(&b, s)
	}
	return b.String()
}

func writeRow(b *strings.Builder, s Setting) {
	name := s.Name
	if !s.Switch() {
		name += ": " + s.Arg
	}
	standard := "none"
	if s.Default != "" {
		standard = "`" + s.Default + "`"
	}
	text := strings.ToUpper(s.Help[:1]) + s.Help[1:] + "."
	if s.More != "" {
		text += " " + s.More
	}
	escape := func(t string) string { return strings.ReplaceAll(t, "|", `\|`) }
	fmt.Fprintf(b, "| `%s` | `%s` | %s | %s |\n", escape(name), s.Env(), escape(standard), escape(text))
}
