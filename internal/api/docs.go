package api

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"maps"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
)

const htmlType = "text/html; charset=utf-8"

//go:embed pages.html
var pagesText string

//go:embed pages.css
var pagesStyle string

// pages are plain: no script, and nothing is loaded from anywhere.
var pages = template.Must(template.New("pages").Funcs(template.FuncMap{
	"style": func() template.CSS { return template.CSS(pagesStyle) },
	"lower": strings.ToLower,
}).Parse(pagesText))

// pagePolicy lets the pages' own style in and nothing else.
var pagePolicy = func() string {
	sum := sha256.Sum256([]byte(pagesStyle))
	return "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) +
		"'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
}()

// docsGroup is the operations of one tag.
type docsGroup struct {
	Tag        string
	Operations []docsOperation
}

type docsOperation struct {
	*huma.Operation
	Members   []docsMember // of the request's body
	BodyTypes []string
	Responses []docsResponse
}

type docsMember struct {
	Name, Type, Doc string
	Required        bool
}

type docsResponse struct {
	Status, Doc string
	Members     []docsMember
}

// docsPage renders the document for people.
func docsPage(doc *huma.OpenAPI) ([]byte, error) {
	var groups []docsGroup
	for _, path := range slices.Sorted(maps.Keys(doc.Paths)) {
		item := doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Patch, item.Delete} {
			if op == nil {
				continue
			}
			i := slices.IndexFunc(groups, func(g docsGroup) bool { return g.Tag == op.Tags[0] })
			if i < 0 {
				i = len(groups)
				groups = append(groups, docsGroup{Tag: op.Tags[0]})
			}
			groups[i].Operations = append(groups[i].Operations, docsOf(op, doc.Components.Schemas))
		}
	}
	slices.SortStableFunc(groups, func(a, b docsGroup) int { return tagOrder(a.Tag) - tagOrder(b.Tag) })
	var b bytes.Buffer
	err := pages.ExecuteTemplate(&b, "docs", struct {
		Info   *huma.Info
		Base   string
		Groups []docsGroup
	}{doc.Info, Base, groups})
	return b.Bytes(), err
}

func tagOrder(tag string) int {
	return slices.Index([]string{"Endpoints", "Events", "Event types", "Deliveries", "Platform"}, tag)
}

func docsOf(op *huma.Operation, schemas huma.Registry) docsOperation {
	d := docsOperation{Operation: op}
	if op.RequestBody != nil {
		d.BodyTypes = slices.Sorted(maps.Keys(op.RequestBody.Content))
		d.Members = membersIn(op.RequestBody.Content[typeJSON], schemas)
	}
	for _, status := range slices.Sorted(maps.Keys(op.Responses)) {
		r := op.Responses[status]
		d.Responses = append(d.Responses, docsResponse{status, r.Description, membersIn(r.Content[typeJSON], schemas)})
	}
	return d
}

// membersIn lists the members of a body; of an envelope, those of its data.
func membersIn(m *huma.MediaType, schemas huma.Registry) []docsMember {
	if m == nil {
		return nil
	}
	schema := resolved(m.Schema, schemas)
	if data := schema.Properties["data"]; data != nil && len(schema.Properties) <= 2 && schema.Properties["type"] == nil {
		if data.Items != nil {
			data = data.Items
		}
		schema = resolved(data, schemas)
	}
	var all []docsMember
	for _, name := range slices.Sorted(maps.Keys(schema.Properties)) {
		p := schema.Properties[name]
		all = append(all, docsMember{Name: name, Type: typeName(p), Doc: p.Description, Required: slices.Contains(schema.Required, name)})
	}
	return all
}

func resolved(s *huma.Schema, schemas huma.Registry) *huma.Schema {
	if s.Ref != "" {
		return schemas.SchemaFromRef(s.Ref)
	}
	return s
}

func typeName(s *huma.Schema) string {
	switch {
	case s.Ref != "":
		return s.Ref[strings.LastIndexByte(s.Ref, '/')+1:]
	case s.Items != nil:
		return "array of " + typeName(s.Items)
	case s.Format != "":
		return s.Format
	}
	return s.Type
}

// indexPage is what a browser finds at /.
func indexPage(version string) ([]byte, error) {
	var b bytes.Buffer
	err := pages.ExecuteTemplate(&b, "index", struct{ Version, Base string }{version, Base})
	return b.Bytes(), err
}
