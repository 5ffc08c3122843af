package health

import (
	"context"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/yourorg/userservice/service/user"
)

// watchProcedure is the path of the watches.
const watchProcedure = "/grpc.health.v1.Health/Watch"

// repeatInterval is the interval at which a watch repeats an unchanged status. Proxies close
// streams that are idle for 20 to 60 s, and gRPC clients accept a repeated status.
const repeatInterval = 15 * time.Second

// WatchHandler serves grpc.health.v1.Health/Watch. Unlike the handler of grpchealth, it keeps the
// watch of an unknown service open, as the protocol requires, and repeats the status.
func (h *Health) WatchHandler(options ...connect.HandlerOption) (path string, handler *connect.Handler) {
	return watchProcedure, connect.NewServerStreamHandler(watchProcedure, func(
		ctx context.Context, req *connect.Request[healthv1.HealthCheckRequest],
		stream *connect.ServerStream[healthv1.HealthCheckResponse],
	) error {
		return h.watch(ctx, req.Msg.GetService(), func(status healthv1.HealthCheckResponse_ServingStatus) error {
			return stream.Send(&healthv1.HealthCheckResponse{Status: status})
		})
	}, options...)
}

// watch sends the current status of the service, then every change, until ctx is done or the server
// drains.
func (h *Health) watch(
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
	repeat := time.NewTicker(repeatInterval)
	defer repeat.Stop()
	last := healthv1.HealthCheckResponse_UNKNOWN // no service has this status
	for {
		status, err := h.watchStatus(ctx, service)
		if err != nil {
			return err
		}
		if status != last {
			if err := send(status); err != nil {
				return err
			}
			last = status
			repeat.Reset(repeatInterval)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		case <-repeat.C:
			last = healthv1.HealthCheckResponse_UNKNOWN
		}
	}
}

// subscribe calls changed when the status of the service may have changed. A watch of an unknown
// service subscribes to the server, to be woken by EndWatches.
func (h *Health) subscribe(ctx context.Context, service string, changed func()) (stop func(), err error) {
	stop, err = h.Watch(ctx, &grpchealth.CheckRequest{Service: service}, changed)
	if connect.CodeOf(err) == connect.CodeNotFound {
		return h.Watch(ctx, &grpchealth.CheckRequest{Service: Server}, changed)
	}
	return stop, err
}

// watchStatus returns the status that a watch sends, or NewDrainingError after EndWatches.
func (h *Health) watchStatus(ctx context.Context, service string) (healthv1.HealthCheckResponse_ServingStatus, error) {
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
