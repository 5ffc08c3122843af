package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// The gRPC interoperability test cases, run with the grpc-go client. A failed case exits the
// process with a log message.
func TestGRPCInterop(t *testing.T) {
	authority := servertest.NewAuthority(t)
	for name, secure := range map[string]bool{"h2c": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t, servertest.Services(testService()), servertest.Config(func(c *server.Config) {
				if secure {
					c.TLSCert, c.TLSKey = authority.Server(t).Write(t, t.TempDir())
				}
			}))
			transport := insecure.NewCredentials()
			if secure {
				trust := authority.Trust()
				trust.ServerName = "userd.test"
				transport = credentials.NewTLS(trust)
			}
			conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(transport))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			runCases(t, conn)
		})
	}
}

func runCases(t *testing.T, conn *grpc.ClientConn) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client := testgrpc.NewTestServiceClient(conn)
	for name, run := range map[string]func(context.Context, testgrpc.TestServiceClient, ...grpc.CallOption){
		"empty_unary":                 interop.DoEmptyUnaryCall,
		"large_unary":                 interop.DoLargeUnaryCall,
		"client_streaming":            interop.DoClientStreaming,
		"server_streaming":            interop.DoServerStreaming,
		"ping_pong":                   interop.DoPingPong,
		"empty_stream":                interop.DoEmptyStream,
		"timeout_on_sleeping_server":  interop.DoTimeoutOnSleepingServer,
		"cancel_after_begin":          interop.DoCancelAfterBegin,
		"cancel_after_first_response": interop.DoCancelAfterFirstResponse,
		"custom_metadata":             interop.DoCustomMetadata,
		"status_code_and_message":     interop.DoStatusCodeAndMessage,
		"special_status_message":      interop.DoSpecialStatusMessage,
	} {
		run(ctx, client)
		t.Log(name)
	}
	interop.DoUnimplementedService(ctx, testgrpc.NewUnimplementedServiceClient(conn))
	interop.DoUnimplementedMethod(ctx, conn)
}

// testService implements grpc.testing.TestService with Connect handlers.
func testService() server.Service {
	return server.Service{
		Descriptor: testgrpc.File_grpc_testing_test_proto.Services().ByName("TestService"),
		New: func(options ...connect.HandlerOption) (string, http.Handler) {
			mux := http.NewServeMux()
			mux.Handle(testgrpc.TestService_EmptyCall_FullMethodName,
				connect.NewUnaryHandler(testgrpc.TestService_EmptyCall_FullMethodName, emptyCall, options...))
			mux.Handle(testgrpc.TestService_UnaryCall_FullMethodName,
				connect.NewUnaryHandler(testgrpc.TestService_UnaryCall_FullMethodName, unaryCall, options...))
			mux.Handle(testgrpc.TestService_StreamingInputCall_FullMethodName,
				connect.NewClientStreamHandler(testgrpc.TestService_StreamingInputCall_FullMethodName, inputCall, options...))
			mux.Handle(testgrpc.TestService_StreamingOutputCall_FullMethodName,
				connect.NewServerStreamHandler(testgrpc.TestService_StreamingOutputCall_FullMethodName, outputCall, options...))
			mux.Handle(testgrpc.TestService_FullDuplexCall_FullMethodName,
				connect.NewBidiStreamHandler(testgrpc.TestService_FullDuplexCall_FullMethodName, duplexCall, options...))
			return "/grpc.testing.TestService/", mux
		},
	}
}

func emptyCall(context.Context, *connect.Request[testgrpc.Empty]) (*connect.Response[testgrpc.Empty], error) {
	return connect.NewResponse(&testgrpc.Empty{}), nil
}

func unaryCall(
	_ context.Context, req *connect.Request[testgrpc.SimpleRequest],
) (*connect.Response[testgrpc.SimpleResponse], error) {
	response := connect.NewResponse(&testgrpc.SimpleResponse{Payload: payload(req.Msg.GetResponseSize())})
	echoMetadata(req.Header(), response.Header(), response.Trailer())
	return response, statusError(req.Msg.GetResponseStatus())
}

func inputCall(
	_ context.Context, stream *connect.ClientStream[testgrpc.StreamingInputCallRequest],
) (*connect.Response[testgrpc.StreamingInputCallResponse], error) {
	size := 0
	for stream.Receive() {
		size += len(stream.Msg().GetPayload().GetBody())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	return connect.NewResponse(&testgrpc.StreamingInputCallResponse{AggregatedPayloadSize: int32(size)}), nil
}

func outputCall(
	ctx context.Context, req *connect.Request[testgrpc.StreamingOutputCallRequest],
	stream *connect.ServerStream[testgrpc.StreamingOutputCallResponse],
) error {
	return sendPayloads(ctx, req.Msg, stream.Send)
}

func duplexCall(
	ctx context.Context, stream *connect.BidiStream[testgrpc.StreamingOutputCallRequest, testgrpc.StreamingOutputCallResponse],
) error {
	echoMetadata(stream.RequestHeader(), stream.ResponseHeader(), stream.ResponseTrailer())
	for {
		req, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := statusError(req.GetResponseStatus()); err != nil {
			return err
		}
		if err := sendPayloads(ctx, req, stream.Send); err != nil {
			return err
		}
	}
}

func sendPayloads(
	ctx context.Context, req *testgrpc.StreamingOutputCallRequest, send func(*testgrpc.StreamingOutputCallResponse) error,
) error {
	for _, parameter := range req.GetResponseParameters() {
		select {
		case <-time.After(time.Duration(parameter.GetIntervalUs()) * time.Microsecond):
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := send(&testgrpc.StreamingOutputCallResponse{Payload: payload(parameter.GetSize())}); err != nil {
			return err
		}
	}
	return nil
}

func payload(size int32) *testgrpc.Payload { return &testgrpc.Payload{Body: make([]byte, size)} }

func statusError(status *testgrpc.EchoStatus) error {
	if status.GetCode() == 0 {
		return nil
	}
	return connect.NewError(connect.Code(status.GetCode()), errors.New(status.GetMessage()))
}

// echoMetadata echoes the metadata of the custom_metadata case.
func echoMetadata(from, header, trailer http.Header) {
	const initial, trailing = "X-Grpc-Test-Echo-Initial", "X-Grpc-Test-Echo-Trailing-Bin"
	if value := from.Get(initial); value != "" {
		header.Set(initial, value)
	}
	if value := from.Get(trailing); value != "" {
		trailer.Set(trailing, value)
	}
}
