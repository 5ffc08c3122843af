package server_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/interop/grpc_testing"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

const mountedCall = "/grpc.testing.TestService/UnaryCall"

// mounted returns a service with one RPC, which fails with the error.
func mounted(isOpen bool, failure error) server.Service {
	return server.Service{
		Descriptor: grpc_testing.File_grpc_testing_test_proto.Services().ByName("TestService"),
		Open:       isOpen,
		New: func(options ...connect.HandlerOption) (string, http.Handler) {
			return "/grpc.testing.TestService/", connect.NewUnaryHandler(mountedCall,
				func(context.Context, *connect.Request[grpc_testing.SimpleRequest]) (*connect.Response[grpc_testing.SimpleResponse], error) {
					return connect.NewResponse(&grpc_testing.SimpleResponse{}), failure
				}, options...)
		},
	}
}

func callMounted(t *testing.T, client connect.HTTPClient, url string, size int) error {
	t.Helper()
	call := connect.NewClient[grpc_testing.SimpleRequest, grpc_testing.SimpleResponse](client, url+mountedCall, connect.WithGRPC())
	_, err := call.CallUnary(t.Context(), connect.NewRequest(&grpc_testing.SimpleRequest{
		Payload: &grpc_testing.Payload{Body: make([]byte, size)},
	}))
	return err
}

// A *connect.Error of an additional service is returned unchanged; the text of other errors is hidden.
func TestMountedServiceKeepsItsErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		failure error
		size    int
		code    connect.Code
		text    string
		details int
	}{
		"none":          {},
		"unknown":       {failure: connect.NewError(connect.CodeUnknown, errors.New("own text")), code: connect.CodeUnknown, text: "own text"},
		"no connect":    {failure: errors.New("secret"), code: connect.CodeInternal, text: "internal error", details: 1},
		"large message": {size: 4<<20 + 1, code: connect.CodeResourceExhausted, text: "4194304"},
	} {
		s := servertest.Start(t, servertest.Parallel(), servertest.Services(mounted(false, test.failure)))
		err := callMounted(t, s.HTTP(true), "http://userd.test", test.size)
		if test.code == 0 {
			if err != nil {
				t.Errorf("%s: call of a mounted service = %v, want no error", name, err)
			}
			continue
		}
		var got *connect.Error
		if !errors.As(err, &got) || got.Code() != test.code || !strings.Contains(got.Message(), test.text) || len(got.Details()) != test.details {
			t.Errorf("%s: call of a mounted service = %v, want code %v, text %q and %d details", name, err, test.code, test.text, test.details)
		}
	}
}

// An additional service requires authentication, unless it is open.
func TestMountedServiceIsAuthorized(t *testing.T) {
	t.Parallel()
	for _, isOpen := range []bool{true, false} {
		g := startGuarded(t, servertest.Parallel(), servertest.Services(mounted(isOpen, nil)))
		want := connect.CodeUnauthenticated
		if isOpen {
			want = 0
		}
		if err := callMounted(t, g.as(true, ""), "http://userd.test", 0); codeOrZero(err) != want {
			t.Errorf("call without a token, open %v = %v, want code %v", isOpen, err, want)
		}
		if err := callMounted(t, g.as(true, g.token(t, "ann", time.Hour)), "http://userd.test", 0); err != nil {
			t.Errorf("call with a token, open %v = %v, want no error", isOpen, err)
		}
	}
}

func codeOrZero(err error) connect.Code {
	if err == nil {
		return 0
	}
	return connect.CodeOf(err)
}
