package main

import (
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// bom is a bill of materials as CycloneDX 1.6 has it. It is made from what the go
// command wrote into the binary, so that it says what is in there and not what
// go.mod would allow. It has no time and a serial number made of the binary's
// hash: the same binary gives the same bytes.
type bom struct {
	Format       string       `json:"bomFormat"`
	SpecVersion  string       `json:"specVersion"`
	SerialNumber string       `json:"serialNumber"`
	Version      int          `json:"version"`
	Metadata     metadata     `json:"metadata"`
	Components   []component  `json:"components"`
	Dependencies []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	PURL       string     `json:"purl,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	Licenses   []license  `json:"licenses,omitempty"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Alg     string `json:"alg"`
	Content string `json:"content"`
}

type license struct {
	License struct {
		ID string `json:"id"`
	} `json:"license"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn,omitempty"`
}

// writeSBOM writes the bill of materials of the binary at path.
func writeSBOM(ctx context.Context, path string, out io.Writer) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return err
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cached, err := modules(ctx, "./cmd/posthorn")
	if err != nil {
		return err
	}
	b, err := billOf(info, sha256.Sum256(content), cached)
	if err != nil {
		return err
	}
	return json.MarshalWrite(out, b, jsontext.WithIndent("  "))
}

func billOf(info *debug.BuildInfo, sum [32]byte, cached []module) (*bom, error) {
	sha := hex.EncodeToString(sum[:])
	b := &bom{
		Format: "CycloneDX", SpecVersion: "1.6", Version: 1,
		SerialNumber: fmt.Sprintf("urn:uuid:%s-%s-8%s-8%s-%s", sha[:8], sha[8:12], sha[13:16], sha[17:20], sha[20:32]),
		Metadata: metadata{Component: component{
			Type: "application", Ref: purl(info.Main.Path, info.Main.Version), Name: info.Main.Path, Version: info.Main.Version,
			Hashes: []hash{{"SHA-256", sha}},
		}},
	}
	for _, s := range info.Settings {
		b.Metadata.Component.Properties = append(b.Metadata.Component.Properties, property{"go:build:" + s.Key, s.Value})
	}
	root := dependency{Ref: b.Metadata.Component.Ref}
	std := component{Type: "library", Ref: purl("std", info.GoVersion), Name: "std", Version: info.GoVersion, PURL: purl("std", strings.TrimPrefix(info.GoVersion, "go"))}
	std.Licenses = []license{licenseOf("BSD-3-Clause")}
	b.Components = append(b.Components, std)
	for _, d := range info.Deps {
		c := component{Type: "library", Ref: purl(d.Path, d.Version), Name: d.Path, Version: d.Version, PURL: purl(d.Path, d.Version)}
		c.Properties = []property{{"go.sum", d.Sum}}
		i := slices.IndexFunc(cached, func(m module) bool { return m.Path == d.Path && m.Version == d.Version })
		if i < 0 {
			return nil, fmt.Errorf("the binary holds %s %s, this tree does not use it: build it from this tree", d.Path, d.Version)
		}
		ids, err := cached[i].licences()
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			c.Licenses = append(c.Licenses, licenseOf(id))
		}
		b.Components = append(b.Components, c)
	}
	for _, c := range b.Components {
		root.DependsOn = append(root.DependsOn, c.Ref)
	}
	b.Dependencies = []dependency{root}
	return b, nil
}

func licenseOf(id string) (l license) {
	l.License.ID = id
	return l
}

func purl(path, version string) string {
	return "pkg:golang/" + path + "@" + version
}
