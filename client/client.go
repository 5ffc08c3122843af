package client

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"
	"connectrpc.com/otelconnect"
	"go.opentelemetry.io/otel/propagation"
)

// Client calls the user service. It is safe for concurrent use. Close releases its connections.
type Client struct {
	*config

	rpcOptions []connect.ClientOption
	balancer   *balancer
	budget     *retryTokens
	auth       *tokenCache // nil: no token is sent
	metrics    *metrics

	ctx    context.Context //nolint:containedctx // of the background work, ended by Close
	cancel context.CancelFunc
}

// New returns a client of the nodes of targets. It connects in the background, so New succeeds while the nodes are
// down. A target is one of
//
//	http://host:port        a node, HTTP/2 without TLS
//	https://host:port       a node with TLS
//	dns+http://host:port    each address of a name is a node; it is looked up again, see WithLookup
//	dns+https://host:port   the same with TLS
//	unix:/path              a Unix socket
//
// All nodes must serve the same store.
func New(targets []string, options ...Option) (*Client, error) {
	config := newConfig(options)
	if config.http1 && config.protocol == GRPC {
		return nil, errors.New("gRPC needs HTTP/2: WithHTTP1 needs the protocol Connect or GRPCWeb")
	}
	if len(targets) == 0 {
		return nil, errors.New("no targets")
	}
	var parsed []target
	names := false
	for _, text := range targets {
		t, err := parseTarget(text)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, t)
		names = names || t.host != ""
	}
	c := &Client{config: config, budget: newRetryTokens(), metrics: newMetrics()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.balancer = &balancer{client: c, balancing: config.balancing}
	c.balancer.nodes.Store(new([]*node))
	if err := c.setUp(); err != nil {
		c.cancel()
		return nil, err
	}
	if names {
		c.balancer.watchers.Go(func() { c.lookUp(c.ctx, parsed) })
		return c, nil
	}
	endpoints, err := config.resolve(c.ctx, parsed)
	if err != nil {
		return nil, err
	}
	c.balancer.update(endpoints)
	return c, nil
}

// setUp makes the options of the generated clients. Interceptors run in this order: traces, metrics, the caller's,
// token.
func (c *Client) setUp() error {
	var interceptors []connect.Interceptor
	if c.tracing != nil {
		traces, err := otelconnect.NewInterceptor(
			otelconnect.WithTracerProvider(c.tracing), otelconnect.WithPropagator(propagation.TraceContext{}),
			otelconnect.WithoutMetrics())
		if err != nil {
			return fmt.Errorf("tracing: %w", err)
		}
		interceptors = append(interceptors, traces)
	}
	if c.registerer != nil {
		if err := c.metrics.register(c.registerer); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
		interceptors = append(interceptors, c.metrics)
	}
	interceptors = append(interceptors, c.interceptors...)
	if c.tokens != nil {
		c.auth = newTokenCache(c.tokens)
		interceptors = append(interceptors, c.auth)
	}
	c.rpcOptions = append(c.protocolOptions(), connect.WithInterceptors(interceptors...))
	if c.gzipBytes >= 0 {
		c.rpcOptions = append(c.rpcOptions, connect.WithSendGzip(), connect.WithCompressMinBytes(c.gzipBytes))
	}
	return nil
}

// protocolOptions returns the options of the protocol.
func (c *config) protocolOptions() []connect.ClientOption {
	switch c.protocol {
	case GRPC:
		return []connect.ClientOption{connect.WithGRPC()}
	case GRPCWeb:
		return []connect.ClientOption{connect.WithGRPCWeb()}
	default:
		return nil
	}
}

// Close ends the health checks and closes the connections. Calls, streams, sessions and mirrors in progress, and calls
// after Close, fail with ErrClosed.
func (c *Client) Close() error {
	c.cancel()
	c.balancer.close()
	return nil
}
