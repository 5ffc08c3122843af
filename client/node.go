package client

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/sony/gobreaker/v2"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// BreakerPolicy is the policy of the circuit breaker of a node. An open breaker lets no call through. After a time it
// is half-open: one call probes the node, and closes or opens the breaker.
type BreakerPolicy struct {
	Failures int           // consecutive failures of the node after which the breaker opens. Default: 5
	Open     time.Duration // time after which an open breaker is half-open. Default: 1 s
}

// status is the health of a node.
type status int32

const (
	statusUnknown     status = iota // not reported yet, or not supported by the server
	statusServing                   // reported SERVING
	statusUnreachable               // the health check failed
	statusNotServing                // reported NOT_SERVING: starting, draining, or its store fails
)

// node is a server with its connections, health and circuit breaker.
type node struct {
	endpoint endpoint
	rpc      userv1connect.UserServiceClient
	health   *grpchealth.Client
	transp   *Transport
	breaker  *gobreaker.TwoStepCircuitBreaker[struct{}]
	status   atomic.Int32
	inFlight atomic.Int64
	stop     context.CancelFunc // ends the health check
}

// Results of calls for the circuit breaker.
var (
	errNodeFailed = errors.New("node failed")
	errNoResult   = errors.New("no result") // the caller canceled the call
)

func (c *Client) newNode(e endpoint) *node {
	n := &node{endpoint: e, transp: newTransport(c.config, e)}
	n.breaker = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		Timeout:     c.breaker.Open,
		ReadyToTrip: func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= uint32(c.breaker.Failures) },
		IsExcluded:  func(err error) bool { return err == errNoResult }, //nolint:errorlint // one of the values above
		OnStateChange: func(_ string, _, to gobreaker.State) {
			c.logger.Warn("circuit breaker changed", "node", e.String(), "state", to.String())
		},
	})
	httpClient := n.transp.httpClient()
	n.rpc = userv1connect.NewUserServiceClient(httpClient, e.url, c.rpcOptions...)
	n.health = grpchealth.NewClient(httpClient, e.url, c.protocolOptions()...)
	return n
}

// watch follows the health of the node until the context ends.
func (c *Client) watch(ctx context.Context, n *node) {
	for failures := 1; ; failures++ {
		for event := range n.health.Watch(ctx, &grpchealth.CheckRequest{Service: userv1connect.UserServiceName}) {
			if event.Err == nil {
				failures = 0
				c.setStatus(ctx, n, servingStatus(event.Response.Status), nil)
				continue
			}
			switch connect.CodeOf(event.Err) {
			case connect.CodeUnimplemented, connect.CodeNotFound, connect.CodePermissionDenied, connect.CodeUnauthenticated:
				c.setStatus(ctx, n, statusUnknown, event.Err) // a server or proxy without health checks
			default:
				c.setStatus(ctx, n, statusUnreachable, event.Err)
			}
		}
		if wait(ctx, c.retry.delay(max(1, failures), c.random)) != nil {
			return
		}
	}
}

func servingStatus(reported grpchealth.Status) status {
	switch reported {
	case grpchealth.StatusServing:
		return statusServing
	case grpchealth.StatusNotServing:
		return statusNotServing
	default:
		return statusUnknown
	}
}

func (c *Client) setStatus(ctx context.Context, n *node, next status, err error) {
	before := status(n.status.Swap(int32(next)))
	if before == next || ctx.Err() != nil {
		return
	}
	names := [...]string{"unknown", "serving", "unreachable", "not serving"}
	if err != nil {
		c.logger.WarnContext(ctx, "node health changed", "node", n.endpoint.String(), "status", names[next], "error", err)
		return
	}
	c.logger.InfoContext(ctx, "node health changed", "node", n.endpoint.String(), "status", names[next])
}

// breakerResult returns the result of a call for the circuit breaker.
func breakerResult(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errNoResult
	case failedNode(newError("", 1, err)):
		return errNodeFailed
	default:
		return nil // the node responded
	}
}
