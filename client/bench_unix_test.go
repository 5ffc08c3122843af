//go:build unix

package client_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/yourorg/userservice/client"
	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
)

const (
	// The clients take turns, so that other load of the machine affects both alike.
	turns     = 20
	turnCalls = 2000
	callers   = 16
)

// BenchmarkGetUser compares the CPU time of client and server per GetUser over gRPC with that of a bare generated client:
// with defaults, which include a deadline for each call, with the caller's deadline, and with metrics. It reports
// medians of the turns, and of the ratios to the bare client.
func BenchmarkGetUser(b *testing.B) {
	s := servertest.Start(b)
	withDefaults, withMetrics := newClient(b, s), newClient(b, s, client.WithMetrics(prometheus.NewRegistry()))
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx) }}
	defer transport.CloseIdleConnections()
	bare := userv1connect.NewUserServiceClient(&http.Client{Transport: transport}, "http://userd.test", connect.WithGRPC())
	id := createUser(b, withDefaults, 1).GetUserId()
	names := []string{"bare", "bare-deadline", "client", "client-deadline", "client-metrics"}
	limited, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	call := []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := bare.GetUser(ctx, &userv1.GetUserRequest{UserId: id})
			return err
		},
		func(context.Context) error {
			_, err := bare.GetUser(limited, &userv1.GetUserRequest{UserId: id})
			return err
		},
		func(ctx context.Context) error {
			_, err := withDefaults.GetUser(ctx, id)
			return err
		},
		func(context.Context) error {
			_, err := withDefaults.GetUser(limited, id)
			return err
		},
		func(ctx context.Context) error {
			_, err := withMetrics.GetUser(ctx, id)
			return err
		},
	}
	for b.Loop() {
		var taken, ratios [5][]float64
		for turn := range 1 + turns {
			for i := range call {
				cpu := cpuOfCalls(b, call[i]).Seconds() * 1e6 / turnCalls
				if turn > 0 { // the first one warms up
					taken[i] = append(taken[i], cpu)
				}
			}
			if turn > 0 {
				for i := range call {
					ratios[i] = append(ratios[i], taken[i][turn-1]/taken[0][turn-1])
				}
			}
		}
		for i, name := range names {
			b.ReportMetric(median(taken[i]), name+"-µs/call")
			b.ReportMetric(median(ratios[i]), name+"-ratio")
		}
	}
	b.ReportMetric(0, "ns/op")
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

// cpuOfCalls returns the CPU time of the process, client and server, for turnCalls calls.
func cpuOfCalls(b *testing.B, call func(context.Context) error) time.Duration {
	b.Helper()
	before := cpuTime(b)
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for range turnCalls / callers {
				if err := call(b.Context()); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	return cpuTime(b) - before
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
