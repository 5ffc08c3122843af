package client

import (
	"context"
	"time"
)

// NewWithResolver returns a client with another name resolver.
func NewWithResolver(targets []string, resolver func(ctx context.Context, host string) ([]string, error), options ...Option) (*Client, error) {
	return New(targets, append(options, func(c *config) { c.resolver = resolver })...)
}

// Config is the configuration that an Option changes.
type Config = config

// WithClock sets the clock of the client.
func WithClock(now func() time.Time) Option { return func(c *config) { c.now = now } }
