package server

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/yourorg/userservice/service/user"
)

// healthRepeat is the interval at which a watch sends a status that has not changed.
// Proxies close streams that are idle for 20 to 60 s. The clients of gRPC take a repeated
// status for what it is: no change.
const healthRepeat = 15 * time.Second

// watchHandler serves grpc.health.v1.Health/Watch. Unlike the handler of grpchealth, it
// keeps the watch of an unknown name open, as the protocol demands, and repeats a status
// so that proxies keep the stream.
func (h *health) watchHandler(options ...connect.HandlerOption) (path string, handler *connect.Handler) {
	return healthWatch, connect.NewServerStreamHandler(healthWatch, func(
		ctx context.Context, req *connect.Request[healthv1.HealthCheckRequest],
		stream *connect.ServerStream[healthv1.HealthCheckResponse],
	) error {
		return h.watch(ctx, req.Msg.GetService(), func(status healthv1.HealthCheckResponse_ServingStatus) error {
			return stream.Send(&healthv1.HealthCheckResponse{Status: status})
		})
	}, options...)
}

// watch sends the present status of the service, then every change, until the context
// ends or the server drains.
func (h *health) watch(
	ctx context.Context, service string, send func(healthv1.HealthCheckResponse_ServingStatus) error,
) error {
	changed := make(chan struct{}, 1)
	stop, err := h.subscribe(ctx, service, func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	if err != nil {
		return err
	}
	defer stop()
	repeat := time.NewTicker(healthRepeat)
	defer repeat.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN // which no service has
	for {
		status, err := h.watched(ctx, service)
		if err != nil {
			return err
		}
		if status != last {
			if err := send(status); err != nil {
				return err
			}
			last = status
			repeat.Reset(healthRepeat)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-repeat.C:
			last = healthv1.HealthCheckResponse_UNKNOWN
		}
	}
}

// subscribe calls changed when the status of the service may have changed. The status of
// an unknown service never does, but its watch ends with all others.
func (h *health) subscribe(ctx context.Context, service string, changed func()) (stop func(), err error) {
	stop, err = h.Watch(ctx, &grpchealth.CheckRequest{Service: service}, changed)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return h.Watch(ctx, &grpchealth.CheckRequest{Service: healthWhole}, changed)
	}
	return stop, err
}

// watched is the status that a watch sends. It returns NewDrainingError once watches are to
// end.
func (h *health) watched(ctx context.Context, service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
	h.mu.Lock()
	ended := h.ended
	h.mu.Unlock()
	if ended {
		head := h.head()
		return 0, user.NewDrainingError(head.Epoch, head.Position)
	}
	checked, err := h.Check(ctx, &grpchealth.CheckRequest{Service: service})
	if connect.CodeOf(err) == connect.CodeNotFound {
		return healthv1.HealthCheckResponse_SERVICE_UNKNOWN, nil
	}
	if err != nil {
		return 0, err
	}
	return healthv1.HealthCheckResponse_ServingStatus(checked.Status), nil
}
