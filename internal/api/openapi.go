package api

import (
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
	"github.com/posthorn/posthorn/internal/web"
)

func init() {
	huma.DefaultArrayNullable = false // our lists are never null
}

// document makes the OpenAPI description of the operations.
func (s *server) document() *huma.OpenAPI {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Posthorn", Version: s.Version,
			Description: "Webhooks in near real time for events of assignments and cases.",
		},
		Servers: []*huma.Server{{URL: s.PublicURL + Base}},
		Components: &huma.Components{
			Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"token": {Type: "http", Scheme: "bearer", Description: "A token that begins with pht_."},
			},
		},
		Security: []map[string][]string{{"token": {}}},
	}
	for _, op := range s.operations {
		doc.AddOperation(op.describe(doc.Components.Schemas))
	}
	return doc
}

var pathParam = regexp.MustCompile(`\{(\w+)\}`)

// pathParams says what stands in paths.
var pathParams = map[string]string{
	"webhookId": "Webhook endpoint identifier.", "eventId": "An event's id.", "deliveryId": "A delivery's id.", "replayId": "A replay's id.", "exportId": "An export's id.", "outboxId": "The number that posthorn.publish returned.",
	"type": "An event type's name.", "name": "A tenant's name.", "tokenId": "A token's id.",
}

func (op *operation) describe(schemas huma.Registry) *huma.Operation {
	d := &huma.Operation{
		OperationID: op.id, Method: op.method, Path: op.path, Tags: []string{op.tag},
		Summary: op.summary, Description: op.describeAccess(),
		Responses: map[string]*huma.Response{},
	}
	for _, m := range pathParam.FindAllStringSubmatch(op.path, -1) {
		d.Parameters = append(d.Parameters, &huma.Param{Name: m[1], In: "path", Description: pathParams[m[1]], Required: true, Schema: stringSchema()})
	}
	for _, p := range op.query {
		d.Parameters = append(d.Parameters, &huma.Param{Name: p.name, In: "query", Description: p.doc, Schema: p.schema})
	}
	for _, p := range op.requestHeaders() {
		d.Parameters = append(d.Parameters, &huma.Param{Name: p.name, In: "header", Description: p.doc, Schema: p.schema})
	}
	if op.body != nil && op.body.model != nil {
		d.RequestBody = &huma.RequestBody{Required: !op.body.optional, Content: map[string]*huma.MediaType{}}
		schema := schemas.Schema(op.body.model, true, op.id)
		for _, t := range op.body.types {
			d.RequestBody.Content[t] = &huma.MediaType{Schema: schema, Example: jsontext.Value(op.body.example)}
			if f, ok := op.body.forms[t]; ok {
				d.RequestBody.Content[t] = &huma.MediaType{Schema: schemas.Schema(f.model, true, op.id), Example: jsontext.Value(f.example)}
			}
			if t == typeNDJSON {
				d.RequestBody.Content[t] = &huma.MediaType{Schema: &huma.Schema{Type: "string", Description: "One event per line."}}
			}
		}
	}
	for _, r := range op.success {
		if op.method == http.MethodPost {
			r.headers = append(slices.Clone(r.headers), "Idempotent-Replayed")
		}
		d.Responses[strconv.Itoa(r.status)] = r.describe(op.id, op.contentType(), schemas)
	}
	problem := schemas.Schema(reflect.TypeFor[web.Problem](), true, "Problem")
	for _, code := range op.codes() {
		d.Responses[strconv.Itoa(web.Status(code))] = &huma.Response{
			Description: web.Title(code),
			Content:     map[string]*huma.MediaType{web.ProblemType: {Schema: problem}},
		}
	}
	return d
}

func (op *operation) describeAccess() string {
	text := op.description
	if text != "" {
		text += "\n\n"
	}
	text += "Needs the scope " + op.scope
	if op.platformScope != "" {
		text += ", or with a token of the platform " + op.platformScope
	}
	if op.reach == ofPlatform {
		text += " and a token of the platform"
	}
	return text + "."
}

// requestHeaders are the headers that mean something to the operation.
func (op *operation) requestHeaders() []param {
	all := slices.Clone(op.headers)
	if op.method == http.MethodPost {
		all = append(all, param{"Idempotency-Key", "The same key again within 24 hours gives the same answer and does nothing new.", stringSchema()})
	}
	if op.reach != ofPlatform {
		all = append(all, param{tenantHeader, "Names the tenant; for platform tokens.", stringSchema()})
	}
	return all
}

// codes are all failures that the operation may answer.
func (op *operation) codes() []posthorn.Code {
	all := []posthorn.Code{
		posthorn.Malformed, posthorn.Unauthorized, posthorn.Forbidden, posthorn.NotAcceptable,
		posthorn.RateLimited, posthorn.Internal, posthorn.Unavailable,
	}
	if op.body != nil {
		all = append(all, posthorn.TooLarge, posthorn.UnsupportedMedia, posthorn.Invalid)
	}
	if op.method == http.MethodPost {
		all = append(all, posthorn.Conflict) // Idempotency-Key
	}
	if op.reach == ofTenant || op.reach == ofTenantOrAll {
		all = append(all, posthorn.NotFound) // the tenant that Posthorn-Tenant names
	}
	all = append(all, op.failures...)
	slices.Sort(all)
	return slices.Compact(all)
}

func (r *success) describe(hint, contentType string, schemas huma.Registry) *huma.Response {
	d := &huma.Response{Description: r.doc}
	if r.model != nil {
		d.Content = map[string]*huma.MediaType{contentType: {Schema: schemas.Schema(r.model, true, hint)}}
	} else if contentType != typeJSON {
		d.Content = map[string]*huma.MediaType{contentType: {Schema: stringSchema()}}
	}
	for _, h := range r.headers {
		if d.Headers == nil {
			d.Headers = map[string]*huma.Param{}
		}
		d.Headers[h] = &huma.Param{Schema: stringSchema()}
	}
	return d
}

// describe mounts the description of the API and the page of links. They are
// made when somebody first asks: most processes are never asked.
func (s *server) describe(mux *web.Mux) {
	document := sync.OnceValue(s.document)
	mux.Handle("GET /openapi.yaml", static("application/yaml", func() ([]byte, error) { return document().YAML() }))
	mux.Handle("GET /docs", static(htmlType, func() ([]byte, error) { return docsPage(document()) }))
	mux.Handle("GET /{$}", static(htmlType, func() ([]byte, error) { return indexPage(s.Version) }))
}

// IsPage reports whether a request asks for a page that is made for browsers.
func IsPage(r *http.Request) bool { return r.URL.Path == "/" || r.URL.Path == "/docs" }

// static answers with what is the same for everybody.
func static(contentType string, make func() ([]byte, error)) web.Handler {
	once := sync.OnceValues(make)
	return func(w http.ResponseWriter, r *http.Request) error {
		body, err := once()
		if err != nil {
			return fmt.Errorf("api: make %s: %w", r.Pattern, err)
		}
		h := w.Header()
		h.Set("Content-Type", contentType)
		h.Set("Content-Length", strconv.Itoa(len(body)))
		if contentType == htmlType {
			h.Set("Content-Security-Policy", pagePolicy)
			h.Set("Referrer-Policy", "no-referrer")
		}
		_, _ = w.Write(body) // the client may be gone; nobody is left to tell
		return nil
	}
}
