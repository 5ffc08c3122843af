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

// Connections beyond the limit are told so in their own protocol, in all and from one
// address; when others have gone there is room again.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	for name, flags := range map[string][]string{
		"in all":   {"--max-connections", "20"},
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
				if last := p.end(); last == nil || *last != (farewell{http2.ErrCodeEnhanceYourCalm, "too_many_connections"}) {
					t.Errorf("HTTP/2: got %v", last)
				}
				old := x.dial(t, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
				if text, err := io.ReadAll(old); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 503 ") {
					t.Errorf("HTTP/1.1: got %q, %v", text, err)
				}
				elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
				other, err := elsewhere.DialContext(t.Context(), "tcp", x.addr)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = other.Close() }()
				if _, err := io.WriteString(other, "GET / HTTP/1.0\r\n\r\n"); err != nil {
					t.Fatal(err)
				}
				text, err := io.ReadAll(other)
				if err != nil || strings.HasPrefix(string(text), "HTTP/1.0 200 ") != (name == "per peer") {
					t.Errorf("from elsewhere: got %.40q, %v", text, err)
				}
				for _, conn := range held {
					_ = conn.Close()
				}
				await(t, "room", func() bool { return x.metric(t, "userd_connections") <= 2 })
				if text, err := io.ReadAll(x.dial(t, "GET / HTTP/1.0\r\n\r\n")); err != nil || !strings.HasPrefix(string(text), "HTTP/1.0 200 ") {
					t.Errorf("when there is room again: got %.40q, %v", text, err)
				}
			})
		})
	}
}

// Where the system allows fewer files than there may be connections, those that are
// held leave enough for operators and the store.
func TestFewerFilesThanConnections(t *testing.T) {
	t.Parallel()
	x := program{wrap: []string{"sh", "-c", `ulimit -n 200; exec "$@"`, "sh"}}.target(t)
	x.output.await(t, "the limit of open files is too low", "asked=10000 taken=72 files=200")
	x.withstands(t, func(t *testing.T) {
		const refused = `userd_connections_refused_total{cause="too_many"}`
		for range 300 {
			x.dial(t, http2.ClientPreface)
		}
		await(t, "refusals", func() bool { return x.metric(t, refused) >= 300-72 })
		if _, err := x.client.CreateUser(t.Context(), newUser("meanwhile", 0)); err != nil {
			t.Error(err)
		}
		if text := x.ask(t, "/readyz"); !strings.HasPrefix(string(text), "ready") {
			t.Errorf("got %s", text)
		}
	})
}

// Streams beyond the limit of their connection are refused, and no others.
func TestTooManyStreamsOfAConnection(t *testing.T) {
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
		told := int64(-1)
		for reset := false; !reset; {
			frame, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if n, ok := frame.Value(http2.SettingMaxConcurrentStreams); ok {
					told = int64(n)
				}
			case *http2.RSTStreamFrame:
				// It is PROTOCOL_ERROR, and not REFUSED_STREAM, from whoever has not said
				// that he has seen the limit.
				if reset = true; frame.StreamID != over {
					t.Errorf("got %v", frame)
				}
			default:
			}
		}
		if told != limit {
			t.Errorf("the client is told of a limit of %d", told)
		}
		for i := range uint32(limit) {
			if err := p.WriteRSTStream(2*i+1, http2.ErrCodeCancel); err != nil {
				t.Fatal(err)
			}
		}
		x.goesOn(t, p, over+2)
	})
}

// sendPartFrom sends the beginning of a request with a body of so many bytes from a
// loopback address, and holds the connection. Its end comes with letGo.
func (x *target) sendPartFrom(t *testing.T, address byte, body int) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, address)}}
	conn, err := dialer.DialContext(t.Context(), "tcp", x.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	x.dialed = append(x.dialed, conn)
	go func() { // it ends when the server or letGo closes the connection
		_, _ = io.WriteString(conn, "POST "+userv1connect.UserServiceCreateUserProcedure+" HTTP/1.1\r\nHost: localhost\r\n"+
			"Content-Type: application/proto\r\nContent-Length: "+strconv.Itoa(body+1)+"\r\n\r\n")
		_, _ = conn.Write(make([]byte, body))
	}()
}

// One caller that takes all the memory it can get has its share, and others do not notice.
func TestMemoryOfOneCallerIsBounded(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	x.peakReset(t)
	x.withstands(t, func(t *testing.T) {
		for range 60 {
			x.sendPartFrom(t, 2, 4<<20-1000)
		}
		await(t, "a refusal", func() bool { return x.metric(t, `userd_memory_refused_total{scope="caller"}`) > 0 })
		const share = scarceBytes * 6 / 10 / 4
		if held := x.metric(t, `userd_memory_reserved_bytes{kind="body"}`); held > share {
			t.Errorf("bodies of one caller hold %d bytes, want at most %d", held, share)
		}
		x.letGo(t)
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("the memory grew to %d bytes, want at most %d", peak, beyondScarce)
	}
}

// Near its memory limit, which takes many callers, the server refuses new calls, says by
// health that it is there, and serves again when the memory is back.
func TestMemoryPressure(t *testing.T) {
	t.Parallel()
	x := newTarget(t, "--memory-limit", scarce)
	client := web(true)
	defer client.CloseIdleConnections()
	x.peakReset(t)
	for i := range 420 { // of seven callers, each with small requests, but many
		x.sendPartFrom(t, byte(2+i%7), 110<<10)
	}
	var refused *connect.Error
	await(t, "a refusal", func() bool {
		_, err := x.client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: x.id})
		return errors.As(err, &refused)
	})
	if refused.Code() != connect.CodeUnavailable || !hasDetail[*errdetails.RetryInfo](refused) ||
		!strings.Contains(reasonOf(refused), "OVERLOADED") {
		t.Errorf("GetUser() = %v, %v, want unavailable, OVERLOADED with RetryInfo", refused, reasonOf(refused))
	}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, x.url()+"/grpc.health.v1.Health/Check", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	if got := said(t.Context(), t, client, request); !strings.Contains(got, "SERVING") || strings.Contains(got, "NOT_SERVING") {
		t.Errorf("health: got %s", got)
	}
	x.output.await(t, "memory level changed", "level=high")
	client.CloseIdleConnections()
	x.letGo(t)
	await(t, "calls to be served again", func() bool {
		_, err := x.client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: x.id})
		return err == nil
	})
	if peak := x.peak(t); peak > beyondScarce {
		t.Errorf("the memory grew to %d bytes, want at most %d", peak, beyondScarce)
	} else {
		t.Logf("at most %d MiB", peak>>20)
	}
	x.rests(t)
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
