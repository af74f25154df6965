package publish

import (
	"mime"
	"net/url"
	"strings"

	"github.com/posthorn/posthorn"
)

const attributeRule = "is no name of a CloudEvents attribute: they are 1 to 20 of a-z and 0-9"

func isAttribute(name string) bool {
	switch name {
	case "specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema", "tenant", "deliverat":
		return true
	}
	return false
}

func validAttribute(name string) bool {
	return name != "" && len(name) <= 20 && !strings.ContainsFunc(name, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') })
}

// attribute takes one attribute of either mode.
func (c *cloud) attribute(name, value string) {
	c.seen[name] = true
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }) {
		c.spoil(name)
		c.fault(name, "holds a control character")
		return
	}
	e := &c.event
	switch name {
	case "specversion":
		if value != "1.0" {
			c.fault(name, "must be 1.0")
		}
	case "type":
		if e.Type = value; value == "" {
			c.spoil(name)
			c.fault(name, "must not be empty")
		}
	case "id":
		if e.SourceID = value; value == "" {
			c.fault(name, "must not be empty")
		}
	case "source":
		if e.Source = value; value == "" {
			c.fault(name, "must not be empty")
		} else if _, err := url.Parse(value); err != nil {
			c.fault(name, "must be a URI reference, such as /cases or https://platform.example.com/cases")
		}
	case "subject":
		if e.Subject = value; value == "" {
			c.fault(name, "must not be empty; leave it out for none")
		}
	case "time", "deliverat":
		t, err := posthorn.ParseTime(value)
		if err != nil {
			c.spoil(name)
			c.fault(name, err.Error())
		} else if name == "time" {
			e.Timestamp = t
		} else {
			e.DeliverAt = t
		}
	case "tenant":
		if e.Tenant = value; !posthorn.ValidTenantName(value) {
			c.fault(name, "must be the name of a tenant: 1 to 64 of A-Z, a-z, 0-9, ., _ and -, beginning with a letter or digit")
		}
	case "datacontenttype":
		if !jsonMedia(value) {
			c.p.media = append(c.p.media, posthorn.Fault{Pointer: c.at.String() + "/datacontenttype", Detail: "must be application/json or a type that ends in +json; leave it out for application/json"})
		}
	default:
		if !validAttribute(name) {
			c.fault(name, attributeRule)
		}
	}
}

// jsonMedia reports whether a media type is one of JSON in UTF-8.
func jsonMedia(s string) bool {
	kind, params, err := mime.ParseMediaType(s)
	charset := params["charset"]
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json")) && (charset == "" || strings.EqualFold(charset, "utf-8"))
}
