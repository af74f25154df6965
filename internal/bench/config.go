package bench

import (
	"fmt"
	"strings"
	"time"
)

// Config is one load.
type Config struct {
	// Binary is the posthorn to measure, and to run the relay with.
	Binary string `json:"-"`
	// Dir is where temporary stores go; empty for the system's. On a RAM disk
	// fsync costs nothing and the figures mean less.
	Dir string `json:"-"`
	// ServeArgs are further flags of "posthorn serve".
	ServeArgs []string `json:"serve_args,omitempty"`
	// HostLimits are the flags that bound a tenant's attempts to one host: here all
	// receivers are one.
	HostLimits []string `json:"host_limits,omitempty"`
	// Store is a PostgreSQL to measure instead of the embedded store, as --store
	// takes it; a database is made on it and dropped again. Nodes is how many serve
	// it, which the connections share.
	Store string `json:"-"`
	Nodes int    `json:"nodes"`
	// Server is the URL of a node that runs already; empty for one of our own.
	Server string `json:"server,omitempty"`
	// Token is an access token of a tenant on Server.
	Token string `json:"-"`
	// Listen is where the receiver listens, ReceiverURL how Server reaches it
	// when that is another address.
	Listen      string `json:"-"`
	ReceiverURL string `json:"-"`

	// Rate is the events a second of an open loop, published on time whether or
	// not earlier ones were answered; 0 for a closed loop: as fast as answers come.
	Rate float64 `json:"rate"`
	// Conns is the number of connections that publish.
	Conns int `json:"conns"`
	// Batch is the number of events in a request; 1 for single publishes. NDJSON
	// sends batches as lines.
	Batch  int  `json:"batch"`
	NDJSON bool `json:"ndjson"`
	// BodySize is the size of "data" in bytes.
	BodySize int `json:"body_size"`

	// Tenants publish in turn; each has an equal part of the endpoints.
	Tenants int `json:"tenants"`
	// Endpoints is how many there are in all. Each event goes to FanOut of them;
	// its tenant's groups of that size take turns.
	Endpoints int `json:"endpoints"`
	FanOut    int `json:"fan_out"`
	// Of each tenant's endpoints the last Hang/Tenants accept and never answer,
	// the Fail/Tenants before those answer 500.
	Hang int `json:"hang"`
	Fail int `json:"fail"`
	// BadShare is the share of the events that goes to endpoints that hang or
	// fail; 0 for what their number makes of it.
	BadShare float64 `json:"bad_share"`
	// Backlog is how many deliveries are pending on the node beforehand: half are
	// held by paused endpoints, half wait for their time.
	Backlog int `json:"backlog"`

	Duration time.Duration `json:"-"`
	// Relay and Raw measure these yardsticks too, for half as long.
	Relay bool `json:"relay"`
	Raw   bool `json:"raw"`

	// Watch, if set, is told twice a second how far a load is.
	Watch func(Progress) `json:"-"`
}

// Progress says how far a measurement is.
type Progress struct {
	What      string
	Share     float64 // of the load's time that has passed; below 0 for unknown
	PerSecond float64 // arrivals at the receiver
}

// What a node is told of a tenant's attempts to one host: nothing bounds them, the
// default does, or what no load reaches.
var (
	noHostLimits      = []string{"--host-rate", "0", "--host-in-flight", "0"}
	defaultHostLimits []string
	farHostLimits     = []string{"--host-rate", "1000000", "--host-in-flight", "65536"}
)

func shownHostLimits(flags []string) string {
	if len(flags) == 0 {
		return "the default limits of a tenant's attempts to one host"
	}
	return strings.Join(flags, " ")
}

// Default is a closed loop of 64 connections on one endpoint.
func Default() Config {
	return Config{
		Conns: 64, Batch: 1, BodySize: 1024, Tenants: 1, Endpoints: 1, FanOut: 1, Nodes: 1,
		HostLimits: noHostLimits,
		Listen:     "127.0.0.1:0", Duration: 10 * time.Second, Relay: true, Raw: true,
	}
}

// Validate names what is wrong with the configuration.
func (c Config) Validate() error {
	switch {
	case c.Endpoints < 1 || c.Endpoints > 1_000_000:
		return fmt.Errorf("endpoints must be 1 to 1000000")
	case c.Tenants < 1 || c.Endpoints%c.Tenants != 0 || c.Hang%c.Tenants != 0 || c.Fail%c.Tenants != 0:
		return fmt.Errorf("endpoints, hang and fail must be multiples of tenants: each tenant has as many")
	case c.Hang < 0 || c.Fail < 0 || c.Hang+c.Fail >= c.Endpoints:
		return fmt.Errorf("of %d endpoints, %d are to hang and %d to fail: leave at least one that answers", c.Endpoints, c.Hang, c.Fail)
	case c.FanOut < 1 || c.Endpoints/c.Tenants%c.FanOut != 0:
		return fmt.Errorf("a tenant's %d endpoints make no whole groups of fan-out %d", c.Endpoints/c.Tenants, c.FanOut)
	case c.Endpoints/c.Tenants/c.FanOut > maxGroups:
		return fmt.Errorf("a tenant can have at most %d groups of endpoints; raise tenants or fan-out", maxGroups)
	case c.BadShare < 0 || c.BadShare >= 1 || c.BadShare > 0 && (c.FanOut > 1 || c.Hang+c.Fail == 0):
		return fmt.Errorf("bad-share is at least 0 and below 1, and for fan-out 1 with endpoints that hang or fail")
	case c.Conns < 1 || c.Conns > 4096:
		return fmt.Errorf("conns must be 1 to 4096")
	case c.Batch < 1 || c.Batch > 1000:
		return fmt.Errorf("batch must be 1 to 1000")
	case c.BodySize < minBodySize || c.BodySize > 250<<10:
		return fmt.Errorf("body-size must be %d to %d", minBodySize, 250<<10)
	case c.Batch*(c.BodySize+64) > 8<<20:
		return fmt.Errorf("a batch of %d events of %d bytes is over 8 MiB; lower batch or body-size", c.Batch, c.BodySize)
	case c.Duration < time.Second || c.Duration > time.Hour:
		return fmt.Errorf("duration must be 1s to 1h")
	case c.Rate < 0 || c.Rate > 1e6:
		return fmt.Errorf("rate must be 0 to 1000000")
	case c.Backlog < 0 || c.Backlog > 100_000_000:
		return fmt.Errorf("backlog must be 0 to 100000000")
	case c.Nodes < 1 || c.Nodes > 16:
		return fmt.Errorf("nodes must be 1 to 16")
	case c.Nodes > 1 && c.Store == "":
		return fmt.Errorf("several nodes need a PostgreSQL: name it by store")
	case c.Server != "" && c.Store != "":
		return fmt.Errorf("store and server exclude each other: a node that runs has its store")
	case c.Server != "" && (c.Tenants > 1 || c.Backlog > 0):
		return fmt.Errorf("tenants and backlog need a server of the load's own")
	}
	return nil
}

// plain is the same load on one endpoint that answers: what the yardsticks get.
func (c Config) plain() Config {
	c.Tenants, c.Endpoints, c.FanOut, c.Batch = 1, 1, 1, 1
	c.Hang, c.Fail, c.BadShare, c.Backlog, c.NDJSON = 0, 0, 0, 0, false
	c.Server, c.ServeArgs, c.Listen, c.ReceiverURL = "", nil, "127.0.0.1:0", ""
	c.Store, c.Nodes = "", 1
	c.Duration = max(c.Duration/2, time.Second)
	return c
}

// maxClosedRate bounds how many deliveries a second a closed loop has cells for.
const maxClosedRate = 150_000

// events is how many events the load may publish at most.
func (c Config) events() int {
	rate := c.Rate
	if rate == 0 {
		rate = max(maxClosedRate/float64(c.FanOut), 1)
	}
	return int(rate*c.Duration.Seconds()) + c.Batch
}

// The numbering: events are numbered as they are published. A request's events
// belong to one tenant, and the tenants take turns. A tenant's endpoints are
// numbered from 0, those that answer first; FanOut neighbours are a group and
// subscribe to one event type.

func (c *Config) perTenant() int { return c.Endpoints / c.Tenants }

func (c *Config) tenantOf(event int) int { return event / c.Batch % c.Tenants }

// groupOf is the group of its tenant's endpoints that an event goes to.
func (c *Config) groupOf(event int) int {
	turn := event/c.Batch/c.Tenants*c.Batch + event%c.Batch // among its tenant's
	groups := c.perTenant() / c.FanOut
	if c.BadShare == 0 {
		return turn % groups
	}
	bad := int(float64(turn) * c.BadShare)
	if int(float64(turn+1)*c.BadShare) > bad {
		return c.good() + bad%(groups-c.good())
	}
	return (turn - bad) % c.good()
}

// good is how many of a tenant's endpoints answer.
func (c *Config) good() int { return (c.Endpoints - c.Hang - c.Fail) / c.Tenants }

// cell is the number of an event's delivery to an endpoint of its tenant.
func (c *Config) cell(event, endpoint int) int { return event*c.FanOut + endpoint%c.FanOut }

// healthy reports whether the delivery's endpoint answers.
func (c *Config) healthy(cell int) bool {
	return c.groupOf(cell/c.FanOut)*c.FanOut+cell%c.FanOut < c.good()
}
