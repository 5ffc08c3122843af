package intercept_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
)

// waiting handlers block on their context or on the next message.
type waiting struct {
	userv1connect.UnimplementedUserServiceHandler
}

func (waiting) WatchUserStatus(
	ctx context.Context, _ *userv1.WatchUserStatusRequest, stream *connect.ServerStream[userv1.UserStatusUpdate],
) error {
	if err := stream.Send(nil); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// StreamUserActivities wraps its error, as a driver might. For all users it sends rows
// without checking its context.
func (waiting) StreamUserActivities(
	ctx context.Context, req *userv1.StreamUserActivitiesRequest, stream *connect.ServerStream[userv1.UserActivity],
) error {
	for req.GetUserId() == 0 {
		if err := stream.Send(&userv1.UserActivity{Action: strings.Repeat("x", 20_000)}); err != nil {
			return err
		}
	}
	<-ctx.Done()
	return errors.New("interrupted")
}

func (waiting) SyncUserStatus(
	_ context.Context, stream *connect.BidiStream[userv1.UserStatusUpdate, userv1.UserStatusUpdate],
) error {
	for {
		if _, err := stream.Receive(); err != nil {
			return err
		}
	}
}

func (waiting) BatchUpdateUsers(
	_ context.Context, stream *connect.ClientStream[userv1.UpdateUserRequest],
) (*userv1.BatchUpdateUsersResponse, error) {
	for stream.Receive() {
	}
	return nil, stream.Err()
}

// pipes is an in-memory network.
type pipes struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.done:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.done) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipes", Net: "pipe"} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// exchange aborts reads of a request body.
type exchange struct {
	control *http.ResponseController

	mu    sync.Mutex
	ended bool
}

func (x *exchange) StopReading() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ended {
		_ = x.control.SetReadDeadline(time.Unix(1, 0))
	}
}

func (x *exchange) StopWriting() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.ended {
		_ = x.control.SetWriteDeadline(time.Unix(1, 0))
	}
}

// serveInBubble runs the waiting handlers for a caller whose credentials expire. The channel
// receives a value for each handler that has returned.
func serveInBubble(t *testing.T, expires time.Time, http2 bool) (client userv1connect.UserServiceClient, returned <-chan struct{}) {
	t.Helper()
	caller := auth.Caller{Subject: "ann", Kind: auth.Token, Permissions: auth.AllPermissions(), Expires: expires}
	return serveCallers(t, func(*http.Request) (auth.Caller, error) { return caller, nil }, http2)
}

// serveCallers does the same with the given authentication.
func serveCallers(
	t *testing.T, authenticate func(*http.Request) (auth.Caller, error), http2 bool,
) (client userv1connect.UserServiceClient, returned <-chan struct{}) {
	t.Helper()
	ended := make(chan struct{}, 10)
	policy := auth.NewPolicy(auth.ReflectionOff)
	mux := http.NewServeMux()
	mux.Handle(userv1connect.NewUserServiceHandler(waiting{}, connect.WithInterceptors(
		intercept.NewErrors(slog.New(slog.DiscardHandler)),
		intercept.NewAuthorize(policy), intercept.Expiry{},
	)))
	handler := auth.Middleware(auth.MiddlewareOptions{Authenticate: authenticate, Policy: policy})(mux)
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	server := &http.Server{
		Protocols: &protocols, ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			x := &exchange{control: http.NewResponseController(w)}
			defer func() {
				x.mu.Lock()
				defer x.mu.Unlock()
				x.ended = true
				ended <- struct{}{}
			}()
			handler.ServeHTTP(w, r.WithContext(reqinfo.With[intercept.Body](r.Context(), x)))
		}),
	}
	network := &pipes{conns: make(chan net.Conn), done: make(chan struct{})}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(network) })
	transport := &http.Transport{Protocols: &protocols, DialContext: network.dial}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = server.Close()
		serving.Wait()
		// Inside the bubble: net/http waits for 500 ms before it closes an HTTP/1.1
		// connection with an unread request body.
		time.Sleep(time.Second)
	})
	return userv1connect.NewUserServiceClient(&http.Client{Transport: transport}, "http://pipes"), ended
}

// streams opens a stream of each kind, sends nothing more, and returns its error.
var streams = map[string]func(context.Context, userv1connect.UserServiceClient) error{
	"server stream": func(ctx context.Context, c userv1connect.UserServiceClient) error {
		stream, err := c.WatchUserStatus(ctx, &userv1.WatchUserStatusRequest{UserIds: []int64{1}})
		return drained(stream, err)
	},
	"server stream with an error of its own": func(ctx context.Context, c userv1connect.UserServiceClient) error {
		stream, err := c.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{UserId: 1})
		return drained(stream, err)
	},
	"bidi stream": func(ctx context.Context, c userv1connect.UserServiceClient) error {
		stream, err := c.SyncUserStatus(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = stream.CloseResponse() }()
		if err := stream.Send(&userv1.UserStatusUpdate{UserId: 1}); err != nil {
			return err
		}
		_, err = stream.Receive()
		return err
	},
	"client stream": func(ctx context.Context, c userv1connect.UserServiceClient) error {
		stream, err := c.BatchUpdateUsers(ctx)
		if err != nil {
			return err
		}
		// The client notices the end when it sends an item.
		for {
			if err := stream.Send(&userv1.UpdateUserRequest{UserId: 1}); err != nil {
				break
			}
			time.Sleep(time.Second) // bubble time
		}
		_, err = stream.CloseAndReceive()
		return err
	},
}

// An idle stream ends with its credentials.
func TestIdleStreamsEndWithTheirCredentials(t *testing.T) {
	for kind, open := range streams {
		t.Run(kind, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				client, _ := serveInBubble(t, start.Add(10*time.Minute), true)
				err := open(t.Context(), client)
				if connect.CodeOf(err) != connect.CodeUnauthenticated || errorInfo(err).GetReason() != string(user.CredentialsExpired) {
					t.Errorf("stream error = %v", err)
				}
				if took := time.Since(start); took < 10*time.Minute || took > 10*time.Minute+30*time.Second {
					t.Errorf("stream ended after %v", took)
				}
			})
		})
	}
}

// Over HTTP/1.1 too, a blocked Receive ends with the credentials.
func TestClientStreamOverHTTP1EndsWithItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		client, returned := serveInBubble(t, start.Add(10*time.Minute), false)
		ctx, cancel := context.WithCancel(t.Context())
		var calling sync.WaitGroup
		calling.Go(func() {
			if stream, err := client.BatchUpdateUsers(ctx); err == nil {
				_ = stream.Send(&userv1.UpdateUserRequest{UserId: 1})
				<-ctx.Done()
				_, _ = stream.CloseAndReceive()
			}
		})
		defer calling.Wait()
		defer cancel()
		<-returned
		if took := time.Since(start); took < 10*time.Minute || took > 10*time.Minute+30*time.Second {
			t.Errorf("stream ended after %v", took)
		}
	})
}

// The clock-skew leeway applies to unary calls and to the start of streams.
func TestLeewayOfCallsAndStreams(t *testing.T) {
	for name, row := range map[string]struct {
		since time.Duration // since the credentials expired
		lasts time.Duration // negative: the call is rejected
	}{
		"just expired": {0, 60 * time.Second}, "in the leeway": {20 * time.Second, 40 * time.Second},
		"at its end": {60 * time.Second, -1}, "after it": {2 * time.Minute, -1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				client, _ := serveInBubble(t, start.Add(-row.since), true)
				err := streams["server stream"](t.Context(), client)
				took := time.Since(start)
				if errorInfo(err).GetReason() != string(user.CredentialsExpired) {
					t.Errorf("stream error = %v", err)
				}
				if low := max(row.lasts, 0); took < low || took > low+30*time.Second {
					t.Errorf("stream ended after %v, want %v", took, low)
				}
			})
		})
	}
}

// A stream that ends before its credentials keeps its own result.
func TestStreamEndsBeforeItsCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, _ := serveInBubble(t, time.Now().Add(time.Hour), true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := streams["server stream"](ctx, client); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("stream error = %v", err)
		}
	})
}

// A handler that sends continuously ends with the credentials too: with a slow reader at
// once, with a stalled reader after the grace period.
func TestSlowReadersEndWithTheirCredentials(t *testing.T) {
	for name, reads := range map[string]bool{"slow": true, "none": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				client, returned := serveInBubble(t, start.Add(10*time.Minute), false)
				stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{})
				if err != nil {
					t.Fatal(err)
				}
				var reading sync.WaitGroup
				reading.Go(func() {
					for reads && stream.Receive() {
						time.Sleep(3 * time.Second) // bubble time
					}
				})
				<-returned
				if took := time.Since(start); took < 10*time.Minute || took > 10*time.Minute+15*time.Second {
					t.Errorf("stream ended after %v", took)
				}
				reading.Wait()
				_ = stream.Close()
			})
		})
	}
}
