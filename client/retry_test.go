package client

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/sony/gobreaker/v2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/types/known/durationpb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// fakeNode responds to GetUser with the results of respond.
type fakeNode struct {
	userv1connect.UserServiceClient

	calls   []time.Time
	respond func(call int) error
}

func (f *fakeNode) GetUser(_ context.Context, request *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	f.calls = append(f.calls, time.Now())
	if err := f.respond(len(f.calls)); err != nil {
		return nil, err
	}
	return &userv1.GetUserResponse{User: &userv1.User{UserId: request.GetUserId()}}, nil
}

// newFakeClient returns a client of fake nodes, without health checks.
func newFakeClient(t *testing.T, fakes []*fakeNode, options ...Option) *Client {
	t.Helper()
	c := &Client{config: newConfig(options), budget: newRetryTokens(), metrics: newMetrics()}
	c.random = func() float64 { return 0.5 }
	c.ctx, c.cancel = context.WithCancel(t.Context())
	t.Cleanup(c.cancel)
	c.balancer = &balancer{client: c, balancing: c.balancing}
	var nodes []*node
	for _, fake := range fakes {
		n := c.newNode(endpoint{url: "http://node"})
		n.rpc = fake
		n.status.Store(int32(statusServing))
		nodes = append(nodes, n)
	}
	c.balancer.nodes.Store(&nodes)
	return c
}

func newReasonError(code connect.Code, reason userv1.ErrorReason, retryAfter time.Duration) error {
	err := connect.NewError(code, errors.New("failed"))
	info, _ := connect.NewErrorDetail(&errdetails.ErrorInfo{Domain: "user.v1", Reason: reason.String()})
	err.AddDetail(info)
	if retryAfter > 0 {
		detail, _ := connect.NewErrorDetail(&errdetails.RetryInfo{RetryDelay: durationpb.New(retryAfter)})
		err.AddDetail(detail)
	}
	return err
}

func TestCallsAreRetried(t *testing.T) {
	unavailable := connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	reset := connect.NewError(connect.CodeCanceled, errors.New("connection reset by peer"))
	for _, test := range []struct {
		name   string
		errs   []error // of the calls; further ones succeed
		delays []time.Duration
		want   bool // success
	}{
		{"success", nil, nil, true},
		{"once", []error{unavailable}, []time.Duration{100 * time.Millisecond}, true},
		{"twice", []error{unavailable, reset}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, true},
		{"three attempts at most", []error{unavailable, unavailable, unavailable}, []time.Duration{100 * time.Millisecond, 200 * time.Millisecond}, false},
		{"draining", []error{newReasonError(connect.CodeUnavailable, userv1.ErrorReason_SERVER_DRAINING, 0)}, []time.Duration{100 * time.Millisecond}, true},
		{
			"RetryInfo", []error{newReasonError(connect.CodeUnavailable, userv1.ErrorReason_OVERLOADED, 2*time.Second)},
			[]time.Duration{2 * time.Second}, true,
		},
		{
			"rate limit", []error{newReasonError(connect.CodeResourceExhausted, userv1.ErrorReason_RATE_LIMITED, 3*time.Second)},
			[]time.Duration{3 * time.Second}, true,
		},
		{"RetryInfo beyond the deadline", []error{newReasonError(connect.CodeUnavailable, userv1.ErrorReason_OVERLOADED, time.Minute)}, nil, false},
		{"user not found", []error{newReasonError(connect.CodeNotFound, userv1.ErrorReason_USER_NOT_FOUND, 0)}, nil, false},
		{"etag", []error{newReasonError(connect.CodeAborted, userv1.ErrorReason_ETAG_MISMATCH, 0)}, nil, false},
		{"disk full", []error{newReasonError(connect.CodeResourceExhausted, userv1.ErrorReason_STORE_FULL, 0)}, nil, false},
		{"internal", []error{newReasonError(connect.CodeInternal, userv1.ErrorReason_INTERNAL, 0)}, nil, false},
		{"cannot be encoded", []error{connect.NewError(connect.CodeInternal, errors.New("marshal message: invalid UTF-8"))}, nil, false},
		{"wrong server", []error{connect.NewError(connect.CodeUnimplemented, errors.New("404 Not Found"))}, nil, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeNode{respond: func(call int) error {
					if call <= len(test.errs) {
						return test.errs[call-1]
					}
					return nil
				}}
				c := newFakeClient(t, []*fakeNode{fake})
				u, err := c.GetUser(t.Context(), 7)
				if (err == nil) != test.want || test.want && u.GetUserId() != 7 {
					t.Errorf("GetUser() = %v, %v, want success: %t", u, err, test.want)
				}
				var delays []time.Duration
				for i := range fake.calls[1:] {
					delays = append(delays, fake.calls[i+1].Sub(fake.calls[i]))
				}
				if !slices.Equal(delays, test.delays) {
					t.Errorf("delays = %v, want %v", delays, test.delays)
				}
				if failure := new(Error); errors.As(err, &failure) && failure.Attempts != len(fake.calls) {
					t.Errorf("Attempts = %d, want %d", failure.Attempts, len(fake.calls))
				}
			})
		})
	}
}

func TestRetryUsesAnotherNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := &fakeNode{respond: func(int) error { return connect.NewError(connect.CodeUnavailable, errors.New("refused")) }}
		healthy := &fakeNode{respond: func(int) error { return nil }}
		c := newFakeClient(t, []*fakeNode{broken, healthy}, WithBreaker(BreakerPolicy{Failures: 1000}))
		for range 4 {
			if _, err := c.GetUser(t.Context(), 1); err != nil {
				t.Fatal(err)
			}
		}
		if len(broken.calls) == 0 || len(healthy.calls) != 4 {
			t.Errorf("calls of the broken node = %d, of the other = %d, want at least 1, and 4", len(broken.calls), len(healthy.calls))
		}
	})
}

// During an outage the budget limits the calls to little more than one for each caller's.
func TestRetryBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeNode{respond: func(int) error { return connect.NewError(connect.CodeUnavailable, errors.New("refused")) }}
		c := newFakeClient(t, []*fakeNode{fake}, WithBreaker(BreakerPolicy{Failures: 1000}))
		for range 100 {
			_, _ = c.GetUser(t.Context(), 1)
		}
		if got := len(fake.calls); got < 101 || got > 105 {
			t.Errorf("calls during an outage = %d, want 101 to 105", got)
		}
		fake.respond = func(int) error { return nil }
		for range 100 {
			_, _ = c.GetUser(t.Context(), 1)
		}
		before := len(fake.calls)
		fake.respond = func(call int) error {
			if call == before+1 {
				return connect.NewError(connect.CodeUnavailable, errors.New("refused"))
			}
			return nil
		}
		if _, err := c.GetUser(t.Context(), 1); err != nil {
			t.Errorf("GetUser() after the outage = %v, want a retry", err)
		}
	})
}

func TestBreakerOpensAndProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := &fakeNode{respond: func(int) error { return connect.NewError(connect.CodeUnavailable, errors.New("refused")) }}
		c := newFakeClient(t, []*fakeNode{fake}, WithRetry(RetryPolicy{Attempts: 1}), WithBreaker(BreakerPolicy{Failures: 3, Open: time.Second}))
		for range 10 {
			_, _ = c.GetUser(t.Context(), 1)
		}
		if got := len(fake.calls); got != 3 {
			t.Errorf("calls until the breaker is open = %d, want 3", got)
		}
		if _, err := c.GetUser(t.Context(), 1); !errors.Is(err, ErrNoNode) || connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("GetUser() with an open breaker = %v, want ErrNoNode, unavailable", err)
		}
		time.Sleep(1100 * time.Millisecond) // in the bubble
		_, _ = c.GetUser(t.Context(), 1)
		_, _ = c.GetUser(t.Context(), 1)
		if got := len(fake.calls); got != 4 {
			t.Errorf("calls while half-open = %d, want 1 probe", got-3)
		}
		time.Sleep(1100 * time.Millisecond)
		fake.respond = func(int) error { return nil }
		for range 3 {
			if _, err := c.GetUser(t.Context(), 1); err != nil {
				t.Errorf("GetUser() after the recovery = %v", err)
			}
		}
		if got := (*c.balancer.nodes.Load())[0].breaker.State(); got != gobreaker.StateClosed {
			t.Errorf("breaker = %v, want closed", got)
		}
	})
}

// A caller that gives up, or sends what cannot be encoded, says nothing about the node.
func TestBreakerIgnoresCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := new(fakeNode)
		c := newFakeClient(t, []*fakeNode{fake}, WithBreaker(BreakerPolicy{Failures: 2}))
		var cancel context.CancelFunc
		fake.respond = func(call int) error {
			if call%2 == 0 {
				return connect.NewError(connect.CodeInternal, errors.New("marshal message: invalid UTF-8"))
			}
			cancel()
			return connect.NewError(connect.CodeCanceled, context.Canceled)
		}
		for range 20 {
			ctx, cancelCall := context.WithCancel(t.Context())
			cancel = cancelCall
			_, _ = c.GetUser(ctx, 1)
			cancelCall()
		}
		if len(fake.calls) != 20 {
			t.Errorf("calls = %d, want 20", len(fake.calls))
		}
	})
}

func TestBalancing(t *testing.T) {
	ok := func(int) error { return nil }
	for _, test := range []struct {
		name      string
		balancing Balancing
		status    [3]status
		inFlight  [3]int64
		want      [3]int // calls of 6
	}{
		{"round-robin", RoundRobin, [3]status{statusServing, statusServing, statusServing}, [3]int64{9, 0, 0}, [3]int{2, 2, 2}},
		{"least loaded", LeastLoaded, [3]status{statusServing, statusServing, statusServing}, [3]int64{9, 0, 5}, [3]int{0, 6, 0}},
		{"least loaded, equal", LeastLoaded, [3]status{statusServing, statusServing, statusServing}, [3]int64{}, [3]int{2, 2, 2}},
		{"draining", RoundRobin, [3]status{statusNotServing, statusServing, statusNotServing}, [3]int64{}, [3]int{0, 6, 0}},
		{"unreachable", RoundRobin, [3]status{statusUnreachable, statusUnreachable, statusUnknown}, [3]int64{}, [3]int{0, 0, 6}},
		{"all unreachable", RoundRobin, [3]status{statusUnreachable, statusUnreachable, statusNotServing}, [3]int64{}, [3]int{4, 2, 0}},
		{"all draining", RoundRobin, [3]status{statusNotServing, statusNotServing, statusNotServing}, [3]int64{}, [3]int{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			fakes := []*fakeNode{{respond: ok}, {respond: ok}, {respond: ok}}
			c := newFakeClient(t, fakes, WithBalancing(test.balancing), WithRetry(RetryPolicy{Attempts: 1}))
			for i, n := range *c.balancer.nodes.Load() {
				n.status.Store(int32(test.status[i]))
				n.inFlight.Store(test.inFlight[i])
			}
			for range 6 {
				_, err := c.GetUser(t.Context(), 1)
				if wantErr := test.want == [3]int{}; wantErr != errors.Is(err, ErrNoNode) {
					t.Errorf("GetUser() = %v, want ErrNoNode: %t", err, wantErr)
				}
			}
			got := [3]int{len(fakes[0].calls), len(fakes[1].calls), len(fakes[2].calls)}
			if got != test.want {
				t.Errorf("calls = %v, want %v", got, test.want)
			}
		})
	}
}

func TestDefaultDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		fake := &fakeNode{respond: func(int) error {
			return newReasonError(connect.CodeUnavailable, userv1.ErrorReason_OVERLOADED, 4*time.Second)
		}}
		c := newFakeClient(t, []*fakeNode{fake}, WithRetry(RetryPolicy{Attempts: 100}))
		_, err := c.GetUser(context.WithoutCancel(t.Context()), 1)
		if got := time.Since(start); got != 8*time.Second || !errors.Is(err, ErrOverloaded) {
			t.Errorf("GetUser() = %v after %v, want ErrOverloaded after 8 s, within the deadline of 10 s", err, got)
		}
	})
}

func TestParseTarget(t *testing.T) {
	for text, want := range map[string]target{
		"http://127.0.0.1:8080":        {endpoint: endpoint{url: "http://127.0.0.1:8080", network: "tcp"}},
		"https://users.example.org/":   {endpoint: endpoint{url: "https://users.example.org", network: "tcp"}},
		"dns+http://users.internal:81": {endpoint: endpoint{url: "http://users.internal:81", network: "tcp"}, host: "users.internal", port: "81"},
		"dns+https://users.internal":   {endpoint: endpoint{url: "https://users.internal", network: "tcp"}, host: "users.internal", port: "443"},
		"unix:/run/userd.sock":         {endpoint: endpoint{url: "http://localhost", network: "unix", addr: "/run/userd.sock"}},
	} {
		if got, err := parseTarget(text); err != nil || got != want {
			t.Errorf("parseTarget(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "localhost:8080", "ftp://host", "http://", "http://host/path", "http://user@host", "http://host?x=1", "http://[::1"} {
		if got, err := parseTarget(text); err == nil {
			t.Errorf("parseTarget(%q) = %+v, want an error", text, got)
		}
	}
}

func TestClockAhead(t *testing.T) {
	for _, test := range []struct{ ahead, want time.Duration }{
		{0, 0}, {time.Second, 0}, {-time.Second, 0}, {2 * time.Minute, 2 * time.Minute}, {-time.Hour, -time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			header := http.Header{"Date": {time.Now().Add(-test.ahead).UTC().Format(http.TimeFormat)}}
			if got := clockAhead(header, time.Now()); got != test.want {
				t.Errorf("clockAhead(%v) = %v, want %v", test.ahead, got, test.want)
			}
		})
	}
}

// Every reason has a value for errors.Is.
func TestEachReasonHasAnError(t *testing.T) {
	all := []error{
		ErrInvalidField, ErrUserNotFound, ErrUsernameTaken, ErrEmailTaken, ErrUserDeleted, ErrUserNotDeleted, ErrETagMismatch,
		ErrRequestIDReused, ErrPositionOutOfRange, ErrPositionNotReached, ErrCredentialsMissing, ErrCredentialsInvalid,
		ErrCredentialsExpired, ErrPermissionMissing, ErrMessageTooLarge, ErrTooManyItems, ErrTooManyStreams, ErrTooManyFollows,
		ErrRateLimited, ErrServerDraining, ErrStoreUnavailable, ErrOverloaded, ErrStoreFull, ErrStoreReadOnly, ErrInternal,
		ErrHostNotAllowed, ErrOriginNotAllowed, ErrStreamStalled,
	}
	for number, name := range userv1.ErrorReason_name {
		if number == 0 {
			continue
		}
		err := error(newError("GetUser", 1, newReasonError(connect.CodeUnknown, userv1.ErrorReason(number), 0)))
		matching := 0
		for _, sentinel := range all {
			if errors.Is(err, sentinel) {
				matching++
			}
		}
		if matching != 1 {
			t.Errorf("errors.Is matches %d values for reason %s, want 1", matching, name)
		}
	}
}

// A call whose token is rejected is repeated once with a new token.
func TestRejectedTokenIsRenewed(t *testing.T) {
	rejected := newReasonError(connect.CodeUnauthenticated, userv1.ErrorReason_CREDENTIALS_EXPIRED, 0)
	for _, test := range []struct {
		name       string
		source     bool
		rejections int
		wantCalls  int
		wantErr    bool
	}{
		{"expired", true, 1, 2, false},
		{"rejected again", true, 9, 2, true},
		{"no token", false, 9, 1, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := new(fakeNode)
				c := newFakeClient(t, []*fakeNode{fake})
				renewals := 0
				if test.source {
					c.auth = newTokenCache(func(context.Context) (Token, error) {
						renewals++
						return Token{Value: "secret"}, nil
					})
				}
				fake.respond = func(call int) error {
					if c.auth != nil {
						_, _ = c.auth.header(t.Context()) // as the interceptor does
					}
					if call <= test.rejections {
						return rejected
					}
					return nil
				}
				_, err := c.GetUser(t.Context(), 1)
				if (err != nil) != test.wantErr || len(fake.calls) != test.wantCalls {
					t.Errorf("GetUser() = %v after %d calls, want %d, an error: %t", err, len(fake.calls), test.wantCalls, test.wantErr)
				}
				if test.source && renewals != test.wantCalls {
					t.Errorf("the source was called %d times, want %d", renewals, test.wantCalls)
				}
			})
		})
	}
}
