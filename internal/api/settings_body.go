package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/posthorn/posthorn"
)

// Settings are an endpoint's own delivery rules as users see them: null where the
// service's default holds.
type Settings struct {
	Headers        headerNames `json:"headers" doc:"Extra request headers. Their values are write-only: null stands for each."`
	RatePerSecond  *float64    `json:"rate_per_second" doc:"At most so many attempts start in a second; null for no bound."`
	MaxInFlight    *int        `json:"max_in_flight" doc:"At most so many attempts at a time; null for 32."`
	TimeoutSeconds *int        `json:"timeout_seconds" doc:"How long an attempt may take; null for 15."`
	RetrySchedule  schedule    `json:"retry_schedule" doc:"The waits between failed attempts, in seconds; null for the service's schedule."`
	Filter         *string     `json:"filter" doc:"A CEL expression over type and data: what it is false for is not delivered. null for no filter."`
	Ordered        bool        `json:"ordered" doc:"One delivery at a time, in the order in which the events were published."`
}

func showSettings(s *posthorn.Settings) Settings {
	shown := Settings{Headers: s.Headers, RetrySchedule: s.RetrySchedule, Filter: maybe(s.Filter), Ordered: s.Ordered}
	if s.RatePerSecond != 0 {
		shown.RatePerSecond = &s.RatePerSecond
	}
	if s.MaxInFlight != 0 {
		shown.MaxInFlight = &s.MaxInFlight
	}
	if s.TimeoutSeconds != 0 {
		shown.TimeoutSeconds = &s.TimeoutSeconds
	}
	return shown
}

// headerNames are shown as an object with a null for each name.
type headerNames []string

// Schema describes what [headerNames.MarshalJSON] writes.
func (headerNames) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "object", AdditionalProperties: &huma.Schema{Type: "null"}}
}

// MarshalJSON writes the names in their order.
func (h headerNames) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, name := range h {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = jsontext.AppendQuote(b, name); err != nil {
			return nil, err
		}
		b = append(b, ":null"...)
	}
	return append(b, '}'), nil
}

// schedule is null when it is not the endpoint's own.
type schedule []int

// Schema describes what [schedule.MarshalJSON] writes.
func (schedule) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{Type: "array", Items: &huma.Schema{Type: "integer"}, Nullable: true}
}

// MarshalJSON writes the waits, or null.
func (s schedule) MarshalJSON() ([]byte, error) {
	if len(s) == 0 {
		return []byte("null"), nil
	}
	return json.Marshal([]int(s))
}

// SettingsUpdate is the body of PATCH …/settings, a merge patch (RFC 7396).
type SettingsUpdate struct {
	Headers        field[headerPatch] `json:"headers,omitempty" nullable:"true" doc:"Extra request headers: a text sets one, null takes it away, those not named stay. null for all takes all away. A url of another origin does so too."`
	RatePerSecond  field[float64]     `json:"rate_per_second,omitempty" nullable:"true" minimum:"0.1" maximum:"1000" doc:"Attempts started in a second; null for no bound."`
	MaxInFlight    field[int64]       `json:"max_in_flight,omitempty" nullable:"true" minimum:"1" maximum:"256" doc:"Attempts at a time; null for 32."`
	TimeoutSeconds field[int64]       `json:"timeout_seconds,omitempty" nullable:"true" minimum:"1" maximum:"30" doc:"How long an attempt may take; null for 15."`
	RetrySchedule  field[[]int64]     `json:"retry_schedule,omitempty" nullable:"true" minItems:"1" maxItems:"20" doc:"Waits between failed attempts in seconds, each of 5 to 86400 and 604800 in all; null for the service's schedule."`
	Filter         field[string]      `json:"filter,omitempty" nullable:"true" maxLength:"4096" doc:"A CEL expression over type (a string) and data that says true or false; null for none."`
	Ordered        field[bool]        `json:"ordered,omitempty" nullable:"true" doc:"One delivery at a time, in publish order; null for false."`
}

// headerPatch are the headers that a patch names, in its order.
type headerPatch []headerChange

type headerChange struct {
	name, value string
	remove      bool
}

// Schema describes what [takeHeaders] reads.
func (headerPatch) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: "object", MaxProperties: new(2 * posthorn.MaxHeaders), Nullable: true,
		AdditionalProperties: &huma.Schema{Type: "string", Nullable: true, MinLength: new(1), MaxLength: new(posthorn.MaxHeaderValue)},
	}
}

// takeHeaders reads and judges headers. No fault repeats a value.
func takeHeaders(to *headerPatch, v jsontext.Value, at jsontext.Pointer) (faults []posthorn.Fault) {
	if v.Kind() != '{' {
		return wrongKind(v, at, "an object")
	}
	d := jsontext.NewDecoder(bytes.NewReader(v))
	if _, err := d.ReadToken(); err != nil {
		return wrongKind(v, at, "an object")
	}
	seen := map[string]bool{}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			break // the syntax was checked
		}
		c := headerChange{name: token.String()}
		value, err := d.ReadValue()
		if err != nil {
			break
		}
		where := at.AppendToken(clip(c.name))
		fault := func(detail string) { faults = append(faults, posthorn.Fault{Pointer: string(where), Detail: detail}) }
		if detail := headerNameFault(c.name); detail != "" {
			fault(detail)
			continue
		}
		if key := posthorn.HeaderKey(c.name); seen[key] {
			fault("is there twice: upper and lower case, and - and _, do not tell names of headers apart")
		} else {
			seen[key] = true
		}
		if c.remove = value.Kind() == 'n'; !c.remove {
			if wrong := takeString(&c.value, value, where); wrong != nil {
				faults = append(faults, wrong...)
			} else if detail := headerValueFault(c.value); detail != "" {
				fault(detail)
			}
		}
		*to = append(*to, c)
	}
	return faults
}

func headerNameFault(name string) string {
	switch {
	case !posthorn.ValidHeaderName(name):
		return "is no name of a header: letters, digits and !#$%&'*+-.^_`|~ (RFC 9110)"
	case len(name) > posthorn.MaxHeaderName:
		return fmt.Sprintf("is %d bytes long; at most %d are allowed", len(name), posthorn.MaxHeaderName)
	case posthorn.ReservedHeader(name):
		return "is reserved, or read as a reserved name by receivers that take - and _ for the same: it belongs to HTTP or to the delivery itself; take another name"
	}
	return ""
}

func headerValueFault(value string) string {
	switch {
	case value == "":
		return "must not be empty; null takes the header away"
	case len(value) > posthorn.MaxHeaderValue:
		return fmt.Sprintf("has a value of %d bytes; at most %d are allowed", len(value), posthorn.MaxHeaderValue)
	case !posthorn.ValidHeaderValue(value):
		return "has a value with a line break or another control character"
	case strings.Trim(value, " \t") != value:
		return "has a value that begins or ends with a space"
	}
	return ""
}

// Limits of a retry schedule, in seconds.
const (
	maxWaits           = 20
	minWait, maxWait   = 5, 86_400
	maxScheduleSeconds = 604_800
)

// check judges what the body names, but for the filter: see checkFilter.
func (u *SettingsUpdate) check(in *input) {
	given := func(f member, pointer string) bool {
		set, null := f.state()
		return set && !null && in.sound(pointer)
	}
	if given(&u.RatePerSecond, "/rate_per_second") && !(u.RatePerSecond.V >= 0.1 && u.RatePerSecond.V <= 1000) {
		in.fault("/rate_per_second", "must be 0.1 to 1000, or null for no bound")
	}
	if given(&u.MaxInFlight, "/max_in_flight") && (u.MaxInFlight.V < 1 || u.MaxInFlight.V > 256) {
		in.fault("/max_in_flight", "must be 1 to 256, or null for %d", posthorn.DefaultMaxInFlight)
	}
	if given(&u.TimeoutSeconds, "/timeout_seconds") && (u.TimeoutSeconds.V < 1 || u.TimeoutSeconds.V > 30) {
		in.fault("/timeout_seconds", "must be 1 to 30 seconds, or null for %d", int(posthorn.DefaultTimeout.Seconds()))
	}
	if given(&u.RetrySchedule, "/retry_schedule") {
		u.checkSchedule(in)
	}
}

func (u *SettingsUpdate) checkSchedule(in *input) {
	if n := len(u.RetrySchedule.V); n == 0 || n > maxWaits {
		in.fault("/retry_schedule", "has %d waits; it must have 1 to %d, or be null for the service's schedule", n, maxWaits)
		return
	}
	sum, sound := int64(0), true
	for i, wait := range u.RetrySchedule.V {
		at := fmt.Sprintf("/retry_schedule/%d", i)
		if !in.sound(at) {
			sound = false
		} else if wait < minWait || wait > maxWait {
			in.fault(at, "must be %d to %d seconds (24 h)", minWait, maxWait)
			sound = false
		}
		sum += wait
	}
	if sound && sum > maxScheduleSeconds {
		in.fault("/retry_schedule", "is %d seconds in all; at most %d (7 days) are allowed", sum, maxScheduleSeconds)
	}
}

// apply changes what the body names. A null puts the default back.
func (u *SettingsUpdate) apply(s *posthorn.Settings) error {
	if u.RatePerSecond.Set {
		s.RatePerSecond = u.RatePerSecond.V
	}
	if u.MaxInFlight.Set {
		s.MaxInFlight = int(u.MaxInFlight.V)
	}
	if u.TimeoutSeconds.Set {
		s.TimeoutSeconds = int(u.TimeoutSeconds.V)
	}
	if u.RetrySchedule.Set {
		s.RetrySchedule = nil
		for _, wait := range u.RetrySchedule.V {
			s.RetrySchedule = append(s.RetrySchedule, int(wait))
		}
	}
	if u.Filter.Set {
		s.Filter = u.Filter.V
	}
	if u.Ordered.Set {
		s.Ordered = u.Ordered.V
	}
	if u.Headers.Null {
		s.Headers = nil
	}
	for _, c := range u.Headers.V {
		s.Headers = c.apply(s.Headers)
	}
	if n := len(s.Headers); n > posthorn.MaxHeaders {
		return &posthorn.Error{Code: posthorn.Invalid, Message: invalidBody, Faults: []posthorn.Fault{{
			Pointer: "/headers", Detail: fmt.Sprintf("makes %d headers with those that are there; at most %d are allowed", n, posthorn.MaxHeaders)}}}
	}
	return nil
}

// apply returns the names after the change. Of those that receivers cannot tell
// apart only the last one stays, in the place of the first.
func (c *headerChange) apply(names []string) []string {
	key := posthorn.HeaderKey(c.name)
	same := func(name string) bool { return posthorn.HeaderKey(name) == key }
	at := slices.IndexFunc(names, same)
	names = slices.DeleteFunc(names, same)
	switch {
	case c.remove:
		return names
	case at < 0:
		return append(names, c.name)
	}
	return slices.Insert(names, at, c.name)
}
