package main_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"golang.org/x/net/http2"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// Connections beyond the limits, in total and per address, are rejected in their own protocol.
// Connections are accepted again after others close.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"total":    {"--max-connections", "20"},
		"per peer": {"--max-connections-per-peer", "20"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			x := newTarget(t, flags...)
			x.withstands(t, func(t *testing.T) {
				var held []net.Conn
				for range 30 {
					held = append(held, x.dial(t, http2.ClientPreface))
				}
				p := x.peer(t)
				if last := p.end(); last == nil || *last != (goAwayInfo{http2.ErrCodeEnhanceYourCalm, "too_many_connections"}) {
					t.Errorf("HTTP/2: GOAWAY = %v, want too_many_connections", last)
				}
				old := x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
				if text, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 503 ") {
					t.Errorf("HTTP/1.1: response = %q, %v, want 503", text, err)
				}
				otherAddress := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
				other, err := otherAddress.DialContext(t.Context(), "tcp", x.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = other.Close() }()
				if _, err := io.WriteString(other, "GET / HTTP/1.0\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(other)
				if err != nil || strings.HasPrefix(string(text), "HTTP/1.0 200 ") != (name == "per peer") {
					t.Errorf("from another address: response = %.40q, %v", text, err)
				}
				for _, conn := range held {
					_ = conn.Close()
				}
				await(t, "closed connections", func() bool { return x.metric(t, "userd_connections") <= 2 })
				if text, err := io.ReadAll(x.dial(t, "GET / HTTP/1.0\r\n\r\n")); err != nil || !strings.HasPrefix(string(text), "HTTP/1.0 200 ") {
					t.Errorf("after connections closed: response = %.40q, %v, want 200", text, err)
				}
			})
		})
	}
}

// If the open file limit is lower than --max-connections, descriptors are reserved for the
// admin listener and the store.
func TestLowFileLimit(t *testing.T) {
	t.Parallel()
	x := program{wrap: []string{"sh", "-c", `ulimit -n 200; exec "$@"`, "sh"}}.target(t)
	x.output.await(t, "open file limit too low", "configured=10000 limit=72 open_files=200")
	x.withstands(t, func(t *testing.T) {
		const refused = `userd_connections_rejected_total{reason="too_many"}`
		for range 300 {
			x.dial(t, http2.ClientPreface)
		}
		await(t, "refusals", func() bool { return x.metric(t, refused) >= 300-72 })
		if _, err := x.client.CreateUser(t.Context(), newUser("concurrent", 0)); err != nil {
			t.Error(err)
		}
		if text := x.ask(t, "/readyz"); !strings.HasPrefix(string(text), "ready") {
			t.Errorf("/readyz = %s, want ready", text)
		}
	})
}

// Only streams beyond --max-concurrent-streams are rejected.
func TestMaxConcurrentStreams(t *testing.T) {
	t.Parallel()
	const limit = 5
	x := newTarget(t, "--max-concurrent-streams", strconv.Itoa(limit))
	x.withstands(t, func(t *testing.T) {
		p := x.peer(t)
		for i := range uint32(limit) {
			if err := p.open(2*i+1, userv1connect.UserServiceBatchCreateUsersProcedure); err != nil {
				t.Fatal(err)
			}
		}
		await(t, "the streams", func() bool {
			return sum(t, x.ask(t, "/metrics"), "userd_open_streams") == limit
		})
		const over = 2*limit + 1
		if err := p.open(over, userv1connect.UserServiceBatchCreateUsersProcedure); err != nil {
			t.Fatal(err)
		}
		advertised := int64(-1)
		for reset := false; !reset; {
			frame, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if n, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok {
					advertised = int64(n)
				}
			case *http2.RSTStreamFrame:
				// The code is PROTOCOL_ERROR before the client has acknowledged SETTINGS.
				if reset = true; frame.StreamID != over {
					t.Errorf("reset %v, want stream %d", frame, over)
				}
			default:
			}
		}
		if advertised != limit {
			t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS = %d, want %d", advertised, limit)
		}
		for i := range uint32(limit) {
			if err := p.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
				t.Fatal(err)
			}
		}
		x.checkUsable(t, p, over+2)
	})
}

// sendPartFrom sends a request without the last byte of its body from a loopback address, and
// holds the connection until disconnectAll.
func (x *target) sendPartFrom(t *testing.T, address byte, body int) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	x.dialed = append(x.dialed, conn)
	go func() { // returns when the connection is closed
		_, _ = io.WriteString(conn, "POST "+userv1connect.UserServiceCreateUserProcedure+" HTTP/1.1\r\nHost: localhost\r\n"+
			"Content-Type: application/proto\r\nContent-Length: "+strconv.Itoa(body+1)+"\r\n\r\n")
		_, _ = conn.Write(make([]byte, body))
	}()
}

// One caller cannot use more than its share of the memory budget.
func TestMemoryShareOfOneCaller(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	x.peakReset(t)
	x.withstands(t, func(t *testing.T) {
		for range 60 {
			x.sendPartFrom(t, 2, 4<<20-1000)
		}
		await(t, "a rejection", func() bool { return x.metric(t, `userd_memory_reservations_rejected_total{scope="caller"}`) > 0 })
		const share = scarceBytes * 6 / 10 / 4
		if held := x.metric(t, `userd_memory_reserved_bytes{kind="body"}`); held > share {
			t.Errorf("request bodies of one caller = %d bytes, want at most %d", held, share)
		}
		x.disconnectAll(t)
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("peak memory = %d bytes, want at most %d", peak, beyondScarce)
	}
}

// Under memory pressure the server rejects new calls with OVERLOADED, but responds to health
// checks. Calls succeed again once memory is released.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	client := web(true)
	defer client.CloseIdleConnections()
	x.peakReset(t)
	sendParts := func(n int) {
		for i := range n { // from seven callers
			x.sendPartFrom(t, byte(2+i%7), 110<<10)
		}
	}
	sendParts(420)
	var refused *connect.Error
	await(t, "a rejection", func() bool {
		sendParts(7) // those without progress are disconnected at the critical level
		_, err := x.client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: x.id})
		return errors.As(err, &refused)
	})
	if refused.Code() != connect.CodeUnavailable || !hasDetail[*errdetails.RetryInfo](refused) ||
		!strings.Contains(reasonOf(refused), "OVERLOADED") {
		t.Errorf("GetUser error = %v (%v), want UNAVAILABLE, OVERLOADED with RetryInfo", refused, reasonOf(refused))
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+"/grpc.health.v1.Health/Check", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if got := fetch(t.Context(), t, client, request); !strings.Contains(got, "SERVING") || strings.Contains(got, "NOT_SERVING") {
		t.Errorf("health check = %s, want SERVING", got)
	}
	x.output.await(t, "memory level changed", "level=high")
	client.CloseIdleConnections()
	x.disconnectAll(t)
	await(t, "a successful call", func() bool {
		_, err := x.client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: x.id})
		return err == nil
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("peak memory = %d bytes, want at most %d", peak, beyondScarce)
	} else {
		t.Logf("peak memory %d MiB", peak>>20)
	}
	x.awaitIdle(t)
}

func hasDetail[T proto.Message](err *connect.Error) bool {
	for _, packed := range err.Details() {
		if message, err := packed.Value(); err == nil {
			if _, ok := message.(T); ok {
				return true
			}
		}
	}
	return false
}

func reasonOf(err *connect.Error) string {
	for _, packed := range err.Details() {
		if message, err := packed.Value(); err == nil {
			if info, ok := message.(*errdetails.ErrorInfo); ok {
				return info.GetReason()
			}
		}
	}
	return ""
}
