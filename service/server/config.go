package server

import (
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/service/browser"
	"github.com/yourorg/userservice/service/forwarded"
	"github.com/yourorg/userservice/service/user"
)

// Config is the configuration of a server. The tags define the name, default and help of each flag
// of userd.
type Config struct {
	Listen      string   `group:"Listeners:" default:"127.0.0.1:8080" help:"Address of gRPC, gRPC-Web, Connect and REST: HOST:PORT or unix:PATH (:0: any free port)."`
	AdminListen string   `group:"Listeners:" default:"127.0.0.1:2112" help:"Address of /metrics, /livez, /readyz and /debug/pprof, or off."`
	SocketMode  FileMode `group:"Listeners:" default:"0660" help:"Permissions of Unix sockets, octal."`

	HTTP2 string `group:"Listeners:" name:"http2" env:"USERD_HTTP2" enum:"fast,std" default:"fast" help:"HTTP/2 server: fast (own) or std (net/http)."`

	CallerConfig `embed:"" group:"Authentication:"`

	CORSOrigin   []string `group:"Browsers and proxies:" name:"cors-origin" placeholder:"ORIGIN" help:"Origins allowed to make cross-origin requests, such as https://app.example.com or https://*.example.com; repeatable."`
	AllowHost    []string `group:"Browsers and proxies:" placeholder:"HOST" help:"Additional Host names accepted on a loopback address without authentication; repeatable."`
	TrustedProxy []string `group:"Browsers and proxies:" placeholder:"CIDR" help:"Proxies whose Forwarded or X-Forwarded-For is trusted: address, CIDR, or unix (peers of a Unix socket); repeatable."`

	LimitConfig `embed:"" group:"Limits:"`

	MaxCallDuration       time.Duration `group:"Timeouts:" default:"1m" help:"Maximum duration of a unary call."`
	HeaderTimeout         time.Duration `group:"Timeouts:" default:"10s" help:"Timeout for a request header and for a TLS handshake."`
	BodyTimeout           time.Duration `group:"Timeouts:" default:"30s" help:"Timeout for the body of a unary request, and for a message of a stream from its first byte."`
	IdleTimeout           time.Duration `group:"Timeouts:" default:"3m" help:"Timeout after which a connection without calls is closed."`
	KeepaliveTime         time.Duration `group:"Timeouts:" default:"60s" help:"Idle time after which the server sends an HTTP/2 PING."`
	KeepaliveTimeout      time.Duration `group:"Timeouts:" default:"5s" help:"Timeout for the acknowledgment of a PING."`
	MaxConnectionAge      time.Duration `group:"Timeouts:" default:"0s" help:"Age, plus or minus a tenth, after which a connection gets no new calls, so that clients connect to other servers too; 0: unlimited."`
	MaxConnectionAgeGrace time.Duration `group:"Timeouts:" default:"30s" help:"Time after --max-connection-age after which the connection is closed with its calls and streams."`
	StallTimeout          time.Duration `group:"Timeouts:" default:"15s" help:"Timeout for a client that stops reading; its stream is reset."`

	DrainWait       time.Duration `group:"Shutdown:" default:"0s" help:"Time to keep serving as not ready before the shutdown, for load balancers."`
	ShutdownTimeout time.Duration `group:"Shutdown:" default:"15s" help:"Timeout of the shutdown after --drain-wait."`

	StoreReplica     string        `group:"Data:" placeholder:"URL" help:"Streaming replica of a PostgreSQL store, read while it has reached the position of this node: postgres://…"`
	Retention        time.Duration `group:"Data:" default:"720h" help:"Time until a deleted user is purged."`
	LogRetention     time.Duration `group:"Data:" default:"0s" help:"Age at which log rows are deleted, at least 24h; 0: never."`
	TrustClock       bool          `group:"Data:" help:"Trust the system clock at start even if it differs from the time recorded in the store."`
	TrustTraceParent bool          `group:"Tracing:" help:"Use the client's traceparent as the parent span and for sampling, instead of a link."`
}

// http2Std is the value of --http2 for the server of net/http.
const http2Std = "std"

// Defaults returns the default configuration.
func Defaults() (Config, error) {
	var c Config
	if err := kong.ApplyDefaults(&c, Flags()); err != nil {
		return Config{}, fmt.Errorf("defaults: %w", err)
	}
	return c, nil
}

// Validate returns an error that names each invalid flag and the expected value.
func (c *Config) Validate() error {
	return errors.Join(
		c.validateListen(),
		c.validateAdmin(),
		errOf(browser.ParseOrigins(c.CORSOrigin)),
		errOf(forwarded.Parse(c.TrustedProxy)),
		browser.ValidateHosts(c.AllowHost),
		c.validate(),
		c.validateLimits(),
		inRange("max-message-bytes", c.MaxMessageBytes, 1<<10, 1<<30),
		inRange("max-concurrent-streams", c.MaxConcurrentStreams, 1, math.MaxInt32),
		inRange("max-stream-items", c.MaxStreamItems, 1, math.MaxInt32),
		inRange("max-call-duration", c.MaxCallDuration, 100*time.Millisecond, 24*time.Hour),
		inRange("header-timeout", c.HeaderTimeout, 100*time.Millisecond, time.Hour),
		inRange("body-timeout", c.BodyTimeout, 100*time.Millisecond, time.Hour),
		inRange("idle-timeout", c.IdleTimeout, 100*time.Millisecond, 24*time.Hour),
		inRange("keepalive-time", c.KeepaliveTime, time.Second, 24*time.Hour),
		inRange("keepalive-timeout", c.KeepaliveTimeout, 100*time.Millisecond, time.Hour),
		inRange("max-connection-age", c.MaxConnectionAge, 0, 100*365*24*time.Hour),
		inRange("max-connection-age-grace", c.MaxConnectionAgeGrace, 0, 100*365*24*time.Hour),
		inRange("stall-timeout", c.StallTimeout, 100*time.Millisecond, time.Hour),
		inRange("drain-wait", c.DrainWait, 0, time.Hour),
		inRange("shutdown-timeout", c.ShutdownTimeout, 0, time.Hour),
		ValidateReplica(c.StoreReplica),
		inRange("retention", c.Retention, 0, 100*365*24*time.Hour),
		c.validateLogRetention(),
	)
}

// validateLogRetention rejects a log retention below the lifetime of request ids.
func (c *Config) validateLogRetention() error {
	const longest = 100 * 365 * 24 * time.Hour
	if c.LogRetention == 0 || c.LogRetention >= user.RequestIDLifetime && c.LogRetention <= longest {
		return nil
	}
	return fmt.Errorf("--log-retention=%v: expected 0 or %v to %v, because results of request ids are read from the log for %v",
		c.LogRetention, user.RequestIDLifetime, longest, user.RequestIDLifetime)
}

// adminOff disables the admin listener, as does an empty address. An empty environment variable
// cannot: kong replaces it with the default.
const adminOff = "off"

func (c *Config) hasAdmin() bool { return c.AdminListen != "" && c.AdminListen != adminOff }

func (c *Config) validateAdmin() error {
	if !c.hasAdmin() {
		return nil
	}
	return validateAddress("admin-listen", c.AdminListen)
}

func (c *Config) validateListen() error {
	if err := validateAddress("listen", c.Listen); err != nil {
		return err
	}
	if !c.InsecureNoAuth && !c.authenticates() && !loopback(c.Listen) {
		return fmt.Errorf("--listen=%s is reachable from other machines and authentication is disabled: "+
			"set --jwt-jwks or --tls-client-rules, listen on a loopback address such as 127.0.0.1:8080, "+
			"or set --insecure-no-auth", c.Listen)
	}
	return nil
}

func errOf[T any](_ T, err error) error { return err }

func validateAddress(flag, address string) error {
	if path, ok := strings.CutPrefix(address, socketPrefix); ok {
		return validateSocket(flag, path)
	}
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return fmt.Errorf("--%s=%s: expected HOST:PORT, such as 127.0.0.1:8080 or :0, or unix:PATH", flag, address)
	}
	return nil
}

// loopback reports whether the address is a Unix socket, a loopback address or localhost.
func loopback(address string) bool {
	if strings.HasPrefix(address, socketPrefix) {
		return true
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func inRange[T Bytes | int | time.Duration](flag string, value, minimum, maximum T) error {
	if value < minimum || value > maximum {
		return fmt.Errorf("--%s=%v: expected %v to %v", flag, value, minimum, maximum)
	}
	return nil
}

// Bytes is a size in bytes. Its text is a number with an optional unit: B, KiB, MiB or GiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// UnmarshalText parses a size.
func (b *Bytes) UnmarshalText(text []byte) error {
	for _, unit := range byteUnits {
		digits, ok := strings.CutSuffix(string(text), unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/int64(unit.size) {
			break
		}
		*b = Bytes(n) * unit.size
		return nil
	}
	return fmt.Errorf("expected a size such as 4MiB, 512KiB or 1048576, not %q", text)
}

// String formats the size in the largest unit that divides it.
func (b Bytes) String() string {
	for _, unit := range byteUnits {
		if b >= unit.size && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
