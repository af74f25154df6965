package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// Markdown is the reference of all commands: docs/cli.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# The command line

<!-- Made from internal/cli; "go test ./internal/cli -update" writes it. -->

Data goes to standard output, talk to standard error. ` + "`-o json` and `-o jsonl`" + ` print what
the API answers, without its envelope: an object, or a list (json) or one object a line
(jsonl). Errors are then JSON as well: ` + "`" + `{"error":{"code","message","hint","request_id"}}` + "`" + `.
A terminal gets colours, a pipe gets none, nor does one where ` + "`NO_COLOR`" + ` is set.

Commands that call a server find it in ` + "`--server` or `POSTHORN_SERVER`" + `, and the token in
` + "`POSTHORN_TOKEN`, `--token-file` or `POSTHORN_TOKEN_FILE`" + `; ` + "`--token`" + ` works and warns on a
terminal. With a token of the platform, ` + "`--tenant` or `POSTHORN_TENANT`" + ` names the tenant.
` + "`posthorn context add`" + ` saves server and token under a name, for ` + "`--context`, `POSTHORN_CONTEXT`" + `
or, after ` + "`posthorn context use`" + `, for all commands. A flag goes before the environment, the
environment before the current context; a context's token goes to its own server only. On a
terminal a command that changes something says which saved context it talks to.
The commands ` + "`token`, `tenant`, `key`, `store` and `migrate`" + ` work on the store itself, also while the service
runs: ` + "`--store` or `POSTHORN_STORE`" + `. Nouns have their plural as an alias. Times are written
` + "`2026-04-29T09:10:00Z`" + ` or as a duration such as ` + "`2h` or `7d`" + `.

## Exit codes

| code | in -o json | meaning |
|---|---|---|
`)
	for _, c := range Codes() {
		fmt.Fprintf(&b, "| %d | `%s` | %s |\n", c.Code, c.Name, c.Meaning)
	}
	root := (&runner{}).root()
	for _, g := range root.Groups() {
		fmt.Fprintf(&b, "\n## %s\n", strings.TrimSuffix(g.Title, ":"))
		for _, c := range root.Commands() {
			if c.GroupID == g.ID {
				describe(&b, c)
			}
		}
	}
	return b.String()
}

// describe writes a command that does something, or those below it.
func describe(b *strings.Builder, c *cobra.Command) {
	if c.HasSubCommands() {
		for _, sub := range c.Commands() {
			describe(b, sub)
		}
		return
	}
	fmt.Fprintf(b, "\n### %s\n\n", c.CommandPath())
	text := c.Short + "."
	if c.Long != "" {
		text += " " + strings.Join(strings.Fields(c.Long), " ")
	}
	fmt.Fprintf(b, "%s\n\n", text)
	if len(c.Aliases) > 0 {
		fmt.Fprintf(b, "Also: `%s`.\n\n", strings.Join(c.Aliases, "`, `"))
	}
	fmt.Fprintf(b, "```\n%s\n```\n", dedent(c.Example))
	if ops := noted(c, callsKey); ops != nil {
		fmt.Fprintf(b, "\nThe same by HTTP: `%s`.\n", strings.Join(ops, "`, `"))
	}
	if ops := noted(c, likeKey); ops != nil {
		fmt.Fprintf(b, "\nBy HTTP, from anywhere: `%s`.\n", strings.Join(ops, "`, `"))
	}
	if flags := strings.TrimRight(c.LocalNonPersistentFlags().FlagUsages(), "\n"); flags != "" {
		fmt.Fprintf(b, "\n```\nposthorn %s\n\n%s\n```\n", strings.TrimPrefix(c.UseLine(), "posthorn "), flags)
	}
}

func dedent(s string) string {
	lines := strings.Split(s, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

// Command is one command of the reference.
type Command struct {
	Path, Example string
	// Calls are the operations of the API that it makes, the main one first; Like those
	// that it does on the store instead.
	Calls, Like []string
}

// Commands lists all commands that do something.
func Commands() []Command {
	var all []Command
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for _, sub := range c.Commands() {
			walk(sub)
		}
		if !c.HasSubCommands() {
			all = append(all, Command{c.CommandPath(), c.Example, noted(c, callsKey), noted(c, likeKey)})
		}
	}
	walk((&runner{}).root())
	return all
}
