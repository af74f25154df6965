package main

import (
	"crypto/sha256"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/posthorn/posthorn/internal/tally"
)

// Every module that is built or tested with has a licence that was allowed.
func TestLicencesAreAllowed(t *testing.T) {
	all, err := modules(t.Context(), "-test", "../../...")
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 20 {
		t.Errorf("only %d modules found", len(all))
	}
	for _, m := range all {
		ids, err := m.licences()
		if err != nil || !permitted(ids) {
			t.Errorf("%s %s has %q (%v); allowed are %q", m.Path, m.Version, ids, err, allowed)
		}
	}
	tally.Count(t, "every dependency has a licence that was allowed", len(all))
}

func TestIdentify(t *testing.T) {
	for text, want := range map[string][]string{
		"Permission is hereby granted, free of\n * charge, to any person obtaining a copy":                           {"MIT"},
		"Redistribution and use in source and binary forms, with or without":                                         {"BSD-2-Clause"},
		"Redistribution and use in source and binary forms ... Neither the name of Google":                           {"BSD-3-Clause"},
		"Apache License\n  Version 2.0, January 2004":                                                                {"Apache-2.0"},
		"Permission to use, copy, modify, and/or distribute this software for any\npurpose":                          {"ISC"},
		"GNU GENERAL PUBLIC LICENSE Version 3":                                                                       {"GPL"},
		"All rights reserved.":                                                                                       nil,
		"Apache License, Version 2.0 with the Commons Clause License Condition v1.0":                                 {"Apache-2.0", "Commons-Clause"},
		"Permission is hereby granted, free of charge, to any person obtaining a copy. May you do good and not evil": {"MIT", "blessing"},
	} {
		got := identify(text)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	if permitted(nil) || permitted([]string{"MIT", "GPL"}) || permitted([]string{"unknown (LICENSE)"}) || !permitted([]string{"MIT", "BSD-3-Clause"}) {
		t.Error("permitted takes what it should not, or refuses what it should")
	}
}

// The bill names every module of the binary once, and is the same each time.
func TestBillOfMaterials(t *testing.T) {
	info := &debug.BuildInfo{GoVersion: "go1.26.0", Main: debug.Module{Path: "github.com/posthorn/posthorn", Version: "(devel)"}}
	cached, err := modules(t.Context(), "../../cmd/posthorn")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range cached {
		info.Deps = append(info.Deps, &debug.Module{Path: m.Path, Version: m.Version, Sum: "h1:x"})
	}
	b, err := billOf(info, sha256.Sum256([]byte("binary")), cached)
	if err != nil {
		t.Fatal(err)
	}
	if len(b.Components) != len(cached)+1 || len(b.Dependencies[0].DependsOn) != len(b.Components) {
		t.Errorf("%d components for %d modules", len(b.Components), len(cached))
	}
	for _, c := range b.Components {
		if len(c.Licenses) == 0 || !strings.HasPrefix(c.PURL, "pkg:golang/") {
			t.Errorf("%s: licences %v, purl %q", c.Name, c.Licenses, c.PURL)
		}
	}
	again, _ := billOf(info, sha256.Sum256([]byte("binary")), cached)
	if diff := cmp.Diff(b, again); diff != "" {
		t.Error(diff)
	}
	info.Deps = append(info.Deps, &debug.Module{Path: "example.com/other", Version: "v1.0.0"})
	if _, err := billOf(info, [32]byte{}, cached); err == nil {
		t.Error("a binary of another tree got a bill")
	}
}
