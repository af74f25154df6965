package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// check compiles the type's schema and holds the example to it.
func (t Type) check() error {
	schema, err := jsonschema.UnmarshalJSON(bytes.NewReader(t.Schema))
	if err != nil {
		return fmt.Errorf("gives %s a schema that cannot be read: %w", t.Name, err)
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	c.AssertFormat()        // an example's dates are to be dates
	c.UseLoader(noLoader{}) // a schema may not make us read files or call out
	const url = "posthorn:schema"
	if err := c.AddResource(url, schema); err != nil {
		return fmt.Errorf("gives %s a schema that cannot be read: %w", t.Name, err)
	}
	compiled, err := c.Compile(url)
	if err != nil {
		return fmt.Errorf("gives %s a schema that is not valid JSON Schema 2020-12: %s", t.Name, oneLine(err))
	}
	example, err := jsonschema.UnmarshalJSON(bytes.NewReader(t.Example))
	if err != nil {
		return fmt.Errorf("gives %s an example that cannot be read: %w", t.Name, err)
	}
	if err := compiled.Validate(example); err != nil {
		return fmt.Errorf("gives %s an example that its schema refuses: %s", t.Name, oneLine(err))
	}
	return nil
}

func oneLine(err error) string {
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, " -")
	}
	return strings.Join(lines[min(1, len(lines)-1):], "; ")
}

type noLoader struct{}

func (noLoader) Load(string) (any, error) {
	return nil, errors.New("schemas must hold all that they refer to, under $defs")
}
