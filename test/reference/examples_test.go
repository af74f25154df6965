package reference

import (
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// example is one operation of the reference.
type example struct {
	operation string // "POST /v2.3/webhooks/endpoints"
	curl      string // the command as it stands
	status    int
	body      string // the JSON shown as the answer
}

var (
	operationLine = regexp.MustCompile(`^(GET|POST|PATCH|DELETE) /v2\.3/\S+$`)
	successLine   = regexp.MustCompile(`^Success Response \((\d+)\)$`)
)

// examples reads the reference: below each operation a curl command behind
// "Example Request" and JSON behind "Success Response (…)".
func examples(t *testing.T) []example {
	t.Helper()
	text, err := os.ReadFile("testdata/webhooks-api-v2.3.txt")
	if err != nil {
		t.Fatal(err)
	}
	var all []example
	var into *string
	for line := range strings.Lines(string(text)) {
		bare := strings.TrimSpace(line)
		switch success := successLine.FindStringSubmatch(bare); {
		case operationLine.MatchString(bare):
			all = append(all, example{operation: bare})
			into = nil
		case bare == "Event Types":
			return all
		case bare == "Example Request":
			into = &all[len(all)-1].curl
		case success != nil:
			all[len(all)-1].status, _ = strconv.Atoi(success[1])
			into = &all[len(all)-1].body
		case into != nil:
			*into += line
		}
	}
	t.Fatal(`the reference has no section "Event Types"`)
	return nil
}

// eventTypes returns the list of the section "Event Types", which stands in one
// line without separators.
func eventTypes(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("testdata/webhooks-api-v2.3.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(text), "Event Types\n")
	list, _, _ = strings.Cut(list, "\n")
	return strings.Fields(regexp.MustCompile(`(cases|assignments)\.`).ReplaceAllString(list, " $0"))
}

func TestReferenceIsReadWhole(t *testing.T) {
	all := examples(t)
	if len(all) != 5 {
		t.Fatalf("%d operations, want 5", len(all))
	}
	for _, e := range all {
		method, _, _ := strings.Cut(e.operation, " ")
		if !strings.HasPrefix(e.curl, "curl -X "+method+" ") || e.status == 0 || !strings.HasPrefix(e.body, "{") {
			t.Errorf("%s: status %d\n%s\n%s", e.operation, e.status, e.curl, e.body)
		}
	}
	if types := eventTypes(t); len(types) != 17 {
		t.Errorf("%d event types, want 17: %q", len(types), types)
	}
}
