package health

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/yourorg/userservice/service/user"
)

// A watch sends the current status, each change at once, and repeats an unchanged status, also for an
// unknown service. It ends when the server drains.
func TestWatch(t *testing.T) {
	const up, down, unknown = healthv1.HealthCheckResponse_SERVING, healthv1.HealthCheckResponse_NOT_SERVING, healthv1.HealthCheckResponse_SERVICE_UNKNOWN
	type statuses = []healthv1.HealthCheckResponse_ServingStatus
	for service, want := range map[string]statuses{
		Server:      {down, down, up, up, down},
		Writes:      {down, down, up, up, down},
		"nobody.v1": {unknown, unknown, unknown},
	} {
		t.Run(service, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := New(func() user.Head { return user.Head{Epoch: "e", Position: 7} })
				var got statuses
				ended := make(chan error, 1)
				go func() {
					ended <- h.watch(t.Context(), service, func(s healthv1.HealthCheckResponse_ServingStatus) error {
						got = append(got, s)
						return nil
					})
				}()
				time.Sleep(repeatInterval + time.Second) // one repeat
				h.set(nil, nil)
				time.Sleep(repeatInterval + time.Second) // another
				h.Drain()
				synctest.Wait()
				h.EndWatches()
				if err := <-ended; !user.HasReason(err, user.ServerDraining) {
					t.Errorf("watch = %v, want SERVER_DRAINING", err)
				}
				if !slices.Equal(got, want) {
					t.Errorf("watch(%q) sent %v, want %v", service, got, want)
				}
			})
		})
	}
}

// A watch ends with its context.
func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		h := New(func() user.Head { return user.Head{} })
		ended := make(chan error, 1)
		go func() {
			ended <- h.watch(ctx, "nobody.v1", func(healthv1.HealthCheckResponse_ServingStatus) error { return nil })
		}()
		synctest.Wait()
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("watch = %v, want the cause of its context", err)
		}
	})
}
