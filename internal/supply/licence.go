package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// allowed are the licences that a dependency may have (SPDX ids): they ask for
// nothing but that their text is passed on. Any other is a decision to be made.
var allowed = []string{"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "ISC", "Zlib", "blessing"}

// reviewed are texts that a person read because no rule can: by the beginning of
// their SHA-256, so that a changed text is read again.
var reviewed = map[string]struct {
	ids []string
	why string
}{
	"f4a00ade8f4057ab": {[]string{"BSD-3-Clause", "MIT"}, "modernc.org/sqlite LICENSE-3RD-PARTY.md: the MPL stands there for modules that no package is compiled from (its section 3)"},
	"8438c9c89b849131": {[]string{"blessing"}, "modernc.org/sqlite LICENSE-SQLITE: public domain"},
	"5ae5bee3072a8413": {nil, "modernc.org/memory LICENSE-LOGO: the address of a picture, which is not built in"},
}

// module is one that packages are built from.
type module struct {
	Path, Version, Dir, Sum string
}

// modules returns the modules of the packages and of all that they import, in
// order of path, without our own.
func modules(ctx context.Context, packages ...string) ([]module, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-deps", "-json=Module"}, packages...)...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w\n%s", err, stderr.String())
	}
	seen := map[string]module{}
	dec := jsontext.NewDecoder(bytes.NewReader(out))
	for dec.PeekKind() == '{' {
		var p struct {
			Module *struct {
				module
				Main bool
			}
		}
		if err := json.UnmarshalDecode(dec, &p); err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		if p.Module != nil && !p.Module.Main {
			seen[p.Module.Path] = p.Module.module
		}
	}
	list := make([]module, 0, len(seen))
	for _, m := range seen {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b module) int { return strings.Compare(a.Path, b.Path) })
	return list, nil
}

// licences returns the ids of all licence texts at the top of the module; none
// for a text that is not known.
func (m module) licences() ([]string, error) {
	if m.Dir == "" {
		return nil, fmt.Errorf("%s is not in the module cache: run go mod download", m.Path)
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, e := range entries {
		name := strings.ToLower(e.Name())
		if e.IsDir() || !strings.HasPrefix(name, "licen") && !strings.HasPrefix(name, "copying") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(m.Dir, e.Name()))
		if err != nil {
			return nil, err
		}
		found := identify(string(text))
		if r, ok := reviewed[fmt.Sprintf("%.8x", sha256.Sum256(text))]; ok {
			found = r.ids
		} else if len(found) == 0 {
			found = []string{"unknown (" + e.Name() + ")"}
		}
		ids = append(ids, found...)
	}
	slices.Sort(ids)
	return slices.Compact(ids), nil
}

// permitted reports whether there is a licence, and all are allowed.
func permitted(ids []string) bool {
	return len(ids) > 0 && !slices.ContainsFunc(ids, func(id string) bool { return !slices.Contains(allowed, id) })
}

var spaces = regexp.MustCompile(`[\s*#>/]+`)

// identify names the licences whose words are in the text.
func identify(text string) []string {
	text = spaces.ReplaceAllString(strings.ToLower(text), " ")
	has := func(words ...string) bool {
		return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
	}
	var ids []string
	for _, rule := range []struct {
		id    string
		found bool
	}{
		{"Apache-2.0", has("apache license", "version 2.0")},
		{"MIT", has("permission is hereby granted, free of charge, to any person obtaining a copy")},
		{"BSD-3-Clause", has("redistribution and use in source and binary forms", "neither the name")},
		{"BSD-2-Clause", has("redistribution and use in source and binary forms") && !has("neither the name")},
		{"ISC", has("permission to use, copy, modify, and or distribute this software for any purpose")},
		{"Zlib", has("altered source versions must be plainly marked")},
		{"blessing", has("may you do good and not evil")},
		{"MPL", has("mozilla public license")},
		{"GPL", has("gnu general public license")},
		{"LGPL", has("gnu lesser general public license")},
		{"AGPL", has("gnu affero general public license")},
		{"EPL", has("eclipse public license")},
		{"BUSL", has("business source license")},
		{"Elastic", has("elastic license")},
		{"SSPL", has("server side public license")},
		{"Commons-Clause", has("commons clause")},
	} {
		if rule.found {
			ids = append(ids, rule.id)
		}
	}
	return ids
}
