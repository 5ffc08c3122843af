package main_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// Idle connections are closed, over HTTP/1.1 and HTTP/2.
func TestIdleConnections(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--idle-timeout", "1s")
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		x.checkUsable(t, p, 1)
		if last := p.end(); last == nil || last.code != http2.ErrCodeNo {
			t.Errorf("HTTP/2: GOAWAY = %v, want NO_ERROR", last)
		}
		text, err := io.ReadAll(x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"))
		if err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 200 ") {
			t.Errorf("HTTP/1.1: response = %.40q, %v, want 200", text, err)
		}
	})
}

// --max-call-duration limits calls regardless of their deadline. The calls wait for a position
// that is never reached, which would otherwise take five seconds.
func TestMaxCallDuration(t *testing.T) {
	t.Parallel()
	const least, most = time.Second, 4 * time.Second
	x := newTarget(t, "--max-call-duration", least.String())
	for name, deadline := range map[string]time.Duration{"no deadline": 0, "long deadline": time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			if deadline > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, deadline)
				defer cancel()
			}
			calling, info := connect.NewClientContext(ctx)
			info.RequestHeader().Set("Userd-Min-Position", x.beyond(t))
			start := time.Now()
			_, err := x.client.GetUser(calling, &userv1.GetUserRequest{UserId: x.id})
			var fault *connect.Error
			if !errors.As(err, &fault) || reasonOf(fault) != "POSITION_NOT_REACHED" {
				t.Errorf("gRPC: error = %v, want POSITION_NOT_REACHED", err)
			}
			if took := time.Since(start); took < least || took > most {
				t.Errorf("gRPC: call took %v", took)
			}
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, x.url()+"/api/v1/users", http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Userd-Min-Position", x.beyond(t))
			if deadline > 0 {
				request.Header.Set("X-Server-Timeout", strconv.Itoa(int(deadline.Seconds())))
			}
			start = time.Now()
			if got := fetch(ctx, t, web(false), request); !strings.HasPrefix(got, "503 ") {
				t.Errorf("REST: response = %s, want 503", got)
			}
			if took := time.Since(start); took < least || took > most {
				t.Errorf("REST: call took %v", took)
			}
		})
	}
}

// beyond returns a position that the log does not reach.
func (x *target) beyond(t *testing.T) string {
	t.Helper()
	ctx, info := connect.NewClientContext(t.Context())
	if _, err := x.client.GetUser(ctx, &userv1.GetUserRequest{UserId: x.id}); err != nil {
		t.Fatal(err)
	}
	epoch, _, _ := strings.Cut(info.ResponseHeader().Get("Userd-Position"), ":")
	return epoch + ":1000000"
}
