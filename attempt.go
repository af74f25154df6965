package posthorn

import (
	"fmt"
	"time"
)

// Attempt is one HTTP request made for a delivery, and what came of it. What
// is in it may be shown to the endpoint's own tenant: no address, no error
// text of ours.
type Attempt struct {
	// Number counts the delivery's attempts from 1: what posthorn-attempt said.
	// A local fault repeats the number of the attempt that it spoiled.
	Number int
	At     time.Time
	// Duration is from the start to the answer's headers, or to the failure.
	Duration time.Duration
	Timings  Timings
	Class    Class
	// Status is the HTTP status; 0 when no answer came.
	Status int
	// Detail narrows the class in a few words ("certificate has expired"), or
	// is empty.
	Detail string
	// RetryAfter is what a 429 or 503 asked for, already within 24 h; 0 if
	// nothing usable. It is not stored.
	RetryAfter time.Duration
	// Headers are the allow-listed headers of the answer, in order of name.
	Headers []Header
	// Snippet is the beginning of the answer's body: at most [MaxSnippet] of a
	// failure, [MaxSuccessSnippet] of a success.
	Snippet []byte
	// BodyNote says that the body went on or broke off: empty, "truncated",
	// "timeout" or "error". It never makes an acknowledged attempt fail.
	BodyNote string
	// Manual marks an attempt that a user asked for.
	Manual bool
}

// Header is one field of an answer.
type Header struct{ Name, Value string }

// Timings split an attempt; zero where a phase did not take place (a kept
// connection has no DNS, Connect and TLS). FirstByte is from the request's last
// byte to the answer's first.
type Timings struct {
	DNS, Connect, TLS, FirstByte time.Duration
}

// What is kept of an answer's body, in bytes.
const (
	MaxSnippet        = 4096
	MaxSuccessSnippet = 256
)

// Succeeded reports whether the receiver acknowledged: 200 to 299, headers in
// time.
func (a *Attempt) Succeeded() bool { return a.Class == ClassOK }

// Class says what came of an attempt. It is a metric label and part of the API.
//
// A later version may have more, and write them into the log that nodes of this one
// read: each is kept by its number, is named "other", and is no success.
type Class uint8

const (
	ClassOK               Class = iota // 2xx
	ClassHTTPStatus                    // an answer other than 2xx and 3xx with Location
	ClassRedirect                      // 3xx with Location; not followed
	ClassTimeout                       // no answer in time, wherever it stuck
	ClassConnect                       // refused, unreachable
	ClassReset                         // the connection broke before the headers were complete
	ClassTLS                           // handshake or certificate
	ClassDNS                           // the name has no address
	ClassProtocol                      // what came is not HTTP/1.1
	ClassResponseTooLarge              // headers over the limit
	ClassRefused                       // the address is not allowed; nothing was dialled
	ClassLocal                         // a fault of our own side; counts against nobody
	classEnd
)

var classNames = [classEnd]string{
	ClassOK: "ok", ClassHTTPStatus: "http_status", ClassRedirect: "redirect",
	ClassTimeout: "timeout", ClassConnect: "connect", ClassReset: "reset",
	ClassTLS: "tls", ClassDNS: "dns", ClassProtocol: "protocol",
	ClassResponseTooLarge: "response_too_large", ClassRefused: "refused_by_policy",
	ClassLocal: "local",
}

// otherClass is what a class of a later version is called.
const otherClass = "other"

// String returns the class as the API and the metrics name it.
func (c Class) String() string {
	if c < classEnd {
		return classNames[c]
	}
	return otherClass
}

// Classes returns all classes of this version, in order.
func Classes() []Class {
	all := make([]Class, classEnd)
	for i := range all {
		all[i] = Class(i)
	}
	return all
}

// Explain says in a sentence why the attempt ended as it did and what to do,
// for the partner who reads the log at three in the morning.
func (a *Attempt) Explain() string {
	s := explain(a)
	if a.Detail != "" && a.Class != ClassOK {
		s += " (" + a.Detail + ")"
	}
	return s + "."
}

func explain(a *Attempt) string {
	took := max(a.Duration.Round(time.Millisecond), time.Millisecond)
	switch a.Class {
	case ClassOK:
		return fmt.Sprintf("The receiver acknowledged with %d after %s", a.Status, took)
	case ClassHTTPStatus:
		return explainStatus(a.Status)
	case ClassRedirect:
		return fmt.Sprintf("The receiver answered %d with a redirect, which is not followed; set the endpoint's url to where it leads", a.Status)
	case ClassTimeout:
		return fmt.Sprintf("No answer within %s; answer 2xx first and work afterwards", took)
	case ClassConnect:
		return "No connection to the receiver's server could be made; check that it runs, that its firewall lets us in, and that its name leads to it"
	case ClassReset:
		return "The connection broke before an answer came; look into the receiver's and its proxy's logs at this time"
	case ClassTLS:
		return "No trusted TLS connection could be made; check the receiver's certificate and TLS versions"
	case ClassDNS:
		return "The host name of the url has no address; check its spelling and its DNS records"
	case ClassProtocol:
		return "What came back is not an HTTP/1.1 answer; check that the url leads to a web server"
	case ClassResponseTooLarge:
		return "The answer's headers are larger than we read; send fewer"
	case ClassRefused:
		return "The host name leads to an address that webhooks may not be sent to; point it to a public one"
	case ClassLocal:
		return "The service itself could not send; nothing is wrong with the endpoint, and the attempt is repeated soon"
	}
	return "The attempt failed in a way that only a newer version of this service can explain"
}

func explainStatus(status int) string {
	switch {
	case status == 410:
		return "The receiver answered 410 Gone, so the endpoint was paused; set its status to active to go on"
	case status == 401 || status == 403:
		return fmt.Sprintf("The receiver answered %d: it, or something before it, asks for credentials or refused the signature", status)
	case status == 404 || status == 405:
		return fmt.Sprintf("The receiver answered %d: there is no webhook handler for POST at this url", status)
	case status == 413:
		return "The receiver answered 413: it takes smaller bodies only; raise its limit to 256 KiB"
	case status == 429:
		return "The receiver answered 429: it wants fewer requests"
	case status >= 500:
		return fmt.Sprintf("The receiver answered %d: it failed on its side; look into its logs at this time", status)
	case status >= 300 && status < 400:
		return fmt.Sprintf("The receiver answered %d, which does not acknowledge; answer 2xx", status)
	}
	return fmt.Sprintf("The receiver answered %d; only 2xx acknowledges", status)
}
