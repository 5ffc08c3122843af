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
)

// Config is what an operator may set. The tags give each flag of userd its name, its
// default and its help.
type Config struct {
	Listen      string   `default:"127.0.0.1:8080" placeholder:"ADDRESS" help:"Address of the one port for gRPC, gRPC-Web, Connect and REST: HOST:PORT or unix:PATH. :0 picks a free port and prints it."`
	AdminListen string   `default:"127.0.0.1:2112" placeholder:"ADDRESS" help:"Address for /metrics, /livez, /readyz and /debug/pprof; off: none."`
	SocketMode  FileMode `default:"0660" help:"Permissions of the file of a Unix socket, in octal."`
	CORSOrigin  []string `name:"cors-origin" placeholder:"ORIGIN" help:"Origin whose pages may call the service, such as https://app.example.com or https://*.example.com. May be repeated."`

	AllowHost []string `placeholder:"HOST" help:"Answer requests for this host, too, as a proxy on this machine may pass them on. On a loopback address where nobody is asked for credentials, only localhost, names below it and loopback addresses are answered: a page from anywhere may give its own name the address of this machine. May be repeated."`

	TrustedProxy []string `placeholder:"CIDR" help:"Peer whose Forwarded or X-Forwarded-For header names the client in limits and logs: an address, a CIDR, or unix for the peers of a Unix socket. May be repeated."`

	CallerConfig `embed:""`
	LimitConfig  `embed:""`

	MaxMessageBytes      Bytes         `default:"4MiB" help:"Largest message, both ways, after decompression."`
	MaxConcurrentStreams int           `default:"1000" help:"Calls that one HTTP/2 connection may have open. Clients learn it from the settings of the connection and wait with further calls; who opens one all the same has it reset, with PROTOCOL_ERROR or REFUSED_STREAM."`
	MaxStreamItems       int           `default:"100000" help:"Items that one client stream may carry."`
	MaxCallDuration      time.Duration `default:"1m" help:"Longest that a call of one message each way may take, whatever deadline its caller sets."`
	HeaderTimeout        time.Duration `default:"10s" help:"How long the header of a request, or a TLS handshake, may take to come."`
	BodyTimeout          time.Duration `default:"30s" help:"How long the body of a request may take to come that is not a stream."`
	IdleTimeout          time.Duration `default:"3m" help:"How long a connection without a call stays open."`
	KeepaliveTime        time.Duration `default:"60s" help:"Silence after which a peer is pinged."`
	KeepaliveTimeout     time.Duration `default:"5s" help:"How long a pinged peer may take to answer."`
	StallTimeout         time.Duration `default:"15s" help:"A reader that takes nothing for so long is cut."`
	DrainWait            time.Duration `default:"0s" help:"How long to go on serving, as not ready, before a stop, so that load balancers notice."`
	ShutdownTimeout      time.Duration `default:"15s" help:"How long a stop may take, from the end of --drain-wait on."`
	Retention            time.Duration `default:"720h" help:"How long a deleted user is kept before it is purged."`
	TrustClock           bool          `help:"Take the system clock as right at start. Otherwise a clock that does not fit the time at which the store was last open must be steady for an hour first."`
	TrustTraceParent     bool          `help:"Make the span of a call a child of its caller's, by traceparent, and let the caller decide whether the trace is kept. Off, the caller's span is linked: whoever may call could have everything recorded, and join other people's traces."`
}

// Defaults returns the configuration of a program that is given no flag.
func Defaults() (Config, error) {
	var c Config
	if err := kong.ApplyDefaults(&c, Flags()); err != nil {
		return Config{}, fmt.Errorf("defaults: %w", err)
	}
	return c, nil
}

// Validate says which setting cannot be, and what was expected instead.
func (c *Config) Validate() error {
	return errors.Join(
		c.validateListen(),
		c.validateAdmin(),
		second(parseOrigins(c.CORSOrigin)),
		second(parseTrustedProxies(c.TrustedProxy)),
		c.validateHosts(),
		c.validate(),
		c.validateLimits(),
		within("max-message-bytes", c.MaxMessageBytes, 1<<10, 1<<30),
		within("max-concurrent-streams", c.MaxConcurrentStreams, 1, math.MaxInt32),
		within("max-stream-items", c.MaxStreamItems, 1, math.MaxInt32),
		within("max-call-duration", c.MaxCallDuration, 100*time.Millisecond, 24*time.Hour),
		within("header-timeout", c.HeaderTimeout, 100*time.Millisecond, time.Hour),
		within("body-timeout", c.BodyTimeout, 100*time.Millisecond, time.Hour),
		within("idle-timeout", c.IdleTimeout, 100*time.Millisecond, 24*time.Hour),
		within("keepalive-time", c.KeepaliveTime, time.Second, 24*time.Hour),
		within("keepalive-timeout", c.KeepaliveTimeout, 100*time.Millisecond, time.Hour),
		within("stall-timeout", c.StallTimeout, 100*time.Millisecond, time.Hour),
		within("drain-wait", c.DrainWait, 0, time.Hour),
		within("shutdown-timeout", c.ShutdownTimeout, 0, time.Hour),
		within("retention", c.Retention, 0, 100*365*24*time.Hour),
	)
}

// adminOff is the address of an admin listener that there is not, as is an empty one. An
// empty environment variable means the default.
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
	if !c.InsecureNoAuth && !c.identifies() && !loopback(c.Listen) {
		return fmt.Errorf("--listen=%s can be reached from other machines, and nothing asks callers who they are: "+
			"ask them, with --jwt-jwks or --tls-client-rules, listen on a loopback address such as 127.0.0.1:8080, "+
			"or accept that with --insecure-no-auth", c.Listen)
	}
	return nil
}

// second gives the error of a function whose result is of no interest.
func second[T any](_ T, err error) error { return err }

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

// loopback reports whether only this machine can reach the address, as it is with the
// file of a Unix socket. A name other than localhost may mean anything.
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

func within[T Bytes | int | time.Duration](flag string, value, least, most T) error {
	if value < least || value > most {
		return fmt.Errorf("--%s=%v: expected %v to %v", flag, value, least, most)
	}
	return nil
}

// Bytes is a size. Its text is a number of bytes, or one with KiB, MiB or GiB.
type Bytes int64

var byteUnits = []struct {
	name string
	size Bytes
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// UnmarshalText reads a size.
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

// String gives the size in the largest unit that fits it.
func (b Bytes) String() string {
	for _, unit := range byteUnits {
		if b >= unit.size && b%unit.size == 0 {
			return strconv.FormatInt(int64(b/unit.size), 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}
