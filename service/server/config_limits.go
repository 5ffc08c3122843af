package server

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/limits"
)

const (
	// burstSeconds is the default burst, in seconds of the request rate.
	burstSeconds   = 2
	minMemoryLimit = 48 << 20

	memoryAuto, memoryOff = "auto", "off"
)

// LimitConfig is the configuration of limits.
type LimitConfig struct {
	MaxMessageBytes       Bytes         `default:"4MiB" help:"Maximum size of a request or response message after decompression."`
	MaxConcurrentStreams  int           `default:"1000" help:"Maximum concurrent streams of an HTTP/2 connection (SETTINGS_MAX_CONCURRENT_STREAMS)."`
	MaxConnections        int           `default:"10000" help:"Maximum open connections (0: unlimited)."`
	MaxConnectionsPerPeer int           `default:"0" help:"Maximum open connections of an address or IPv6 /64, except trusted proxies (0: unlimited)."`
	MaxStreamsPerCaller   int           `default:"10000" help:"Maximum open streams of a caller, over all connections (0: unlimited)."`
	MaxRequestsPerSecond  int           `default:"0" help:"Maximum requests per second of a caller (0: unlimited)."`
	MaxRequestBurst       int           `default:"0" help:"Maximum burst of requests of a caller (0: two seconds of --max-requests-per-second)."`
	MaxStreamBytes        Bytes         `default:"1GiB" help:"Maximum total size of the messages of a client stream (0: unlimited)."`
	MaxStreamItems        int           `default:"100000" help:"Maximum items of a client stream."`
	MaxControlFrames      int           `default:"100" help:"Maximum excess HTTP/2 control frames per second of a connection and frame type, with a burst of ten times that (0: unlimited)."`
	KeepaliveMinTime      time.Duration `default:"5s" help:"Minimum average interval of client PINGs on an idle connection; exceeding it closes the connection with too_many_pings (0: unlimited)."`
	MemoryLimit           string        `default:"auto" help:"Memory limit of the process: SIZE, off, or auto (GOMEMLIMIT, else 9/10 of the cgroup limit, else 3/4 of the machine)."`
}

func (c *LimitConfig) validateLimits() error {
	_, err := c.memoryLimit()
	return errors.Join(
		inRange("max-connections", c.MaxConnections, 0, math.MaxInt32),
		inRange("max-connections-per-peer", c.MaxConnectionsPerPeer, 0, math.MaxInt32),
		inRange("max-streams-per-caller", c.MaxStreamsPerCaller, 0, math.MaxInt32),
		inRange("max-requests-per-second", c.MaxRequestsPerSecond, 0, 1_000_000),
		inRange("max-request-burst", c.MaxRequestBurst, 0, 10_000_000),
		inRange("max-stream-bytes", c.MaxStreamBytes, 0, 1<<50),
		inRange("max-control-frames", c.MaxControlFrames, 0, 1_000_000),
		inRange("keepalive-min-time", c.KeepaliveMinTime, 0, 24*time.Hour),
		err,
	)
}

// memoryLimit returns the limit in bytes, 0 for none.
func (c *LimitConfig) memoryLimit() (int64, error) {
	switch c.MemoryLimit {
	case memoryAuto:
		return budget.ProcessMemoryLimit(), nil
	case memoryOff, "":
		return 0, nil
	}
	var limit Bytes
	if err := limit.UnmarshalText([]byte(c.MemoryLimit)); err != nil {
		return 0, fmt.Errorf("--memory-limit=%s: %w", c.MemoryLimit, err)
	}
	return int64(limit), inRange("memory-limit", limit, minMemoryLimit, 1<<50)
}

// newLimits returns the configured limits and sets the memory limit of the Go runtime.
func (s *Server) newLimits() (*limits.Limits, error) {
	c := &s.cfg
	memory, err := c.memoryLimit()
	if err != nil {
		return nil, err
	}
	burst := c.MaxRequestBurst
	if burst == 0 {
		burst = burstSeconds * c.MaxRequestsPerSecond
	}
	return limits.New(limits.Options{
		MessageBytes:       int64(c.MaxMessageBytes),
		Connections:        c.MaxConnections,
		ConnsPerPeer:       c.MaxConnectionsPerPeer,
		StreamsPerConn:     c.MaxConcurrentStreams,
		StreamsPerCaller:   c.MaxStreamsPerCaller,
		StreamBytes:        int64(c.MaxStreamBytes),
		RequestRate:        c.MaxRequestsPerSecond,
		RequestBurst:       burst,
		ControlFrames:      c.MaxControlFrames,
		MinPingInterval:    c.KeepaliveMinTime,
		StallTimeout:       c.StallTimeout,
		ConnectionAge:      c.MaxConnectionAge,
		ConnectionAgeGrace: c.MaxConnectionAgeGrace,
		Memory:             memory,

		Anonymous: !c.authenticates(),
		Proxies:   s.proxies,
		Open:      s.callers.policy.Open,
		IsStream:  streamingBody(s.services),
		Rejected:  s.metrics.RequestRejected,
		Registry:  s.metrics.Registry(),
		Logger:    s.log,
	})
}
