// Command supply says what Posthorn is made of: the licences of the modules that
// it is built from (make licenses), and a bill of materials of a binary that was
// built (make sbom). It needs the module cache and the go command, no network.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "supply:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "licenses":
		return printLicences(ctx, out)
	case len(args) == 2 && args[0] == "sbom":
		return writeSBOM(ctx, args[1], out)
	}
	return errors.New("usage: supply licenses | supply sbom BINARY")
}

// printLicences lists all modules and fails if one has a licence that is not
// allowed.
func printLicences(ctx context.Context, out io.Writer) error {
	shipped, err := modules(ctx, "./cmd/posthorn")
	if err != nil {
		return err
	}
	all, err := modules(ctx, "-test", "./...")
	if err != nil {
		return err
	}
	inBinary := map[string]bool{}
	for _, m := range shipped {
		inBinary[m.Path] = true
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MODULE\tVERSION\tLICENCE\tWHERE")
	var bad []string
	for _, m := range all {
		ids, err := m.licences()
		if err != nil {
			return err
		}
		if !permitted(ids) {
			bad = append(bad, m.Path)
		}
		where := "tests"
		if inBinary[m.Path] {
			where = "binary"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", m.Path, m.Version, strings.Join(ids, " AND "), where)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("licences that nobody allowed: %s", strings.Join(bad, ", "))
	}
	return nil
}
