package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/yourorg/userservice/client"

	conformancev1 "github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1"
	"github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1/conformancev1connect"
)

// parallelCalls bounds the calls of the client under test.
const parallelCalls = 16

// runClient is the client under test of the Connect conformance runner: the generated client of the
// ConformanceService over the transport of package client. It reads ClientCompatRequests from in and writes a
// ClientCompatResponse for each to out.
func runClient(ctx context.Context, in io.Reader, out io.Writer) error {
	var (
		transports transports
		mu         sync.Mutex // protects out
		calls      errgroup.Group
	)
	calls.SetLimit(parallelCalls)
	for {
		request := new(conformancev1.ClientCompatRequest)
		if err := readMessage(in, request); err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, calls.Wait())
		}
		calls.Go(func() error {
			response := &conformancev1.ClientCompatResponse{TestName: request.GetTestName()}
			result, err := transports.call(ctx, request)
			if err != nil {
				response.Result = &conformancev1.ClientCompatResponse_Error{Error: &conformancev1.ClientErrorResult{Message: err.Error()}}
			} else {
				response.Result = &conformancev1.ClientCompatResponse_Response{Response: result}
			}
			mu.Lock()
			defer mu.Unlock()
			return writeMessage(out, response)
		})
	}
}

// transports are the transports of the client, one for each server and HTTP version.
type transports struct {
	mu     sync.Mutex
	cached map[string]http.RoundTripper
}

func (t *transports) get(request *conformancev1.ClientCompatRequest) (http.RoundTripper, string, error) {
	scheme := "http://"
	var options []client.Option
	if request.GetHttpVersion() == conformancev1.HTTPVersion_HTTP_VERSION_1 {
		options = append(options, client.WithHTTP1())
	}
	if request.GetServerTlsCert() != nil {
		scheme = "https://"
		settings := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		settings.RootCAs.AppendCertsFromPEM(request.GetServerTlsCert())
		if credentials := request.GetClientTlsCreds(); credentials != nil {
			pair, err := tls.X509KeyPair(credentials.GetCert(), credentials.GetKey())
			if err != nil {
				return nil, "", err
			}
			settings.Certificates = []tls.Certificate{pair}
		}
		options = append(options, client.WithTLS(settings))
	}
	url := scheme + net.JoinHostPort(request.GetHost(), strconv.Itoa(int(request.GetPort())))
	key := fmt.Sprint(url, request.GetHttpVersion())
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cached == nil {
		t.cached = make(map[string]http.RoundTripper)
	}
	if t.cached[key] == nil {
		transport, err := client.NewTransport(url, options...)
		if err != nil {
			return nil, "", err
		}
		t.cached[key] = transport
	}
	return t.cached[key], url, nil
}

// call makes the call of a request. An error is one of the client program, not of the call.
func (t *transports) call(ctx context.Context, request *conformancev1.ClientCompatRequest) (*conformancev1.ClientResponseResult, error) {
	transport, url, err := t.get(request)
	if err != nil {
		return nil, err
	}
	options := []connect.ClientOption{connect.WithReadMaxBytes(int(request.GetMessageReceiveLimit()))}
	switch request.GetProtocol() {
	case conformancev1.Protocol_PROTOCOL_GRPC:
		options = append(options, connect.WithGRPC())
	case conformancev1.Protocol_PROTOCOL_GRPC_WEB:
		options = append(options, connect.WithGRPCWeb())
	default:
	}
	if request.GetUseGetHttpMethod() {
		options = append(options, connect.WithHTTPGet())
	}
	if request.GetCodec() == conformancev1.Codec_CODEC_JSON {
		options = append(options, connect.WithProtoJSON())
	}
	if request.GetCompression() == conformancev1.Compression_COMPRESSION_GZIP {
		options = append(options, connect.WithSendGzip())
	} else {
		options = append(options, connect.WithAcceptCompression("gzip", nil, nil))
	}
	if request.TimeoutMs != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(request.GetTimeoutMs())*time.Millisecond)
		defer cancel()
	}
	c := &conformanceCall{
		request: request, result: new(conformancev1.ClientResponseResult),
		rpc: conformancev1connect.NewConformanceServiceClient(&http.Client{Transport: transport}, url, options...),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	defer c.cancel()
	if err := c.run(); err != nil {
		return nil, err
	}
	return c.result, nil
}

// addRequestHeaders adds the headers of the request.
func addRequestHeaders(header http.Header, request *conformancev1.ClientCompatRequest) {
	for _, h := range request.GetRequestHeaders() {
		for _, value := range h.GetValue() {
			header.Add(h.GetName(), value)
		}
	}
}

func headersToProto(header http.Header) []*conformancev1.Header {
	var all []*conformancev1.Header
	for name, values := range header {
		all = append(all, &conformancev1.Header{Name: name, Value: values})
	}
	return all
}

func errorToProto(err error) *conformancev1.Error {
	failure := new(connect.Error)
	if !errors.As(err, &failure) {
		text := err.Error()
		return &conformancev1.Error{Code: conformancev1.Code_CODE_UNKNOWN, Message: &text}
	}
	message := failure.Message()
	converted := &conformancev1.Error{Code: conformancev1.Code(failure.Code()), Message: &message}
	for _, detail := range failure.Details() {
		converted.Details = append(converted.Details, &anypb.Any{TypeUrl: "type.googleapis.com/" + detail.Type(), Value: detail.Bytes()})
	}
	return converted
}
