package main_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"net/http"
	"strconv"
	"testing"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

const messageLimit = 4 << 20 // default of --max-message-bytes

// variant is a protocol for a compressed message.
type variant struct {
	name, path, kind, encoding string // encoding is the header name
	http2, prefix              bool
}

func compressedWays() []variant {
	const (
		unary, stream = userv1connect.UserServiceCreateUserProcedure, userv1connect.UserServiceBatchCreateUsersProcedure
		connectHeader = "Connect-Content-Encoding"
	)
	return []variant{
		{"Connect", unary, "application/proto", "Content-Encoding", false, false},
		{"Connect with JSON over HTTP/2", unary, "application/json", "Content-Encoding", true, false},
		{"Connect stream", stream, "application/connect+proto", connectHeader, false, true},
		{"gRPC", unary, "application/grpc", "Grpc-Encoding", true, true},
		{"gRPC stream", stream, "application/grpc", "Grpc-Encoding", true, true},
		{"gRPC-Web", unary, "application/grpc-web+proto", "Grpc-Encoding", false, true},
		{"gRPC-Web stream", stream, "application/grpc-web+proto", "Grpc-Encoding", true, true},
		{"REST", "/api/v1/users", "application/json", "Content-Encoding", false, false},
	}
}

// web returns an HTTP client.
func web(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: &http.Transport{Protocols: protocols, DisableCompression: true}}
}

// fetch sends a request and returns status, body and gRPC message.
func fetch(ctx context.Context, t *testing.T, client *http.Client, request *http.Request) string {
	t.Helper()
	response, err := client.Do(request.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, _ := io.ReadAll(response.Body) // a part is sufficient
	return strconv.Itoa(response.StatusCode) + " " + string(body) + " " +
		response.Header.Get("Grpc-Message") + response.Trailer.Get("Grpc-Message")
}

// A gzip bomb costs about as much as a message of maximum size.
func TestGzipBombs(t *testing.T) {
	t.Parallel()
	const inflated = 512 << 20
	var body bytes.Buffer
	w := gzip.NewWriter(&body)
	for zeros := make([]byte, 1<<20); body.Len() < inflated/1032; { // maximum deflate ratio
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, variant := range compressedWays() {
		t.Run(variant.name, func(t *testing.T) {
			sendBombs(t, variant, bomb{body: body.Bytes(), wants: "limit is 4194304 bytes"})
		})
	}
}

// Memory is not allocated by the declared size of a message.
func TestDeclaredSizes(t *testing.T) {
	t.Parallel()
	x := newTarget(t)
	const claim = "\x00\xff\xff\xff\xff"
	for name, begins := range map[string]string{
		"HTTP/1.1, Content-Length": "POST " + userv1connect.UserServiceGetUserProcedure +
			" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nContent-Length: 1099511627776\r\n\r\nx",
		"HTTP/1.1, REST": "POST /api/v1/users HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1099511627776\r\n\r\n{",
		"HTTP/1.1, allowed Content-Length": "POST " + userv1connect.UserServiceGetUserProcedure +
			" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/proto\r\nContent-Length: 4194304\r\n\r\nx",
		"HTTP/1.1, gRPC-Web": "POST " + userv1connect.UserServiceGetUserProcedure +
			" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/grpc-web+proto\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + claim + "\r\n",
		"HTTP/1.1, Connect stream": "POST " + userv1connect.UserServiceBatchCreateUsersProcedure +
			" HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/connect+proto\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + claim + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			x.checkClaims(t, func() { x.dial(t, begins) })
		})
	}
	for _, allowed := range []string{claim, "\x00\x00\x3f\xff\xff"} {
		t.Run("gRPC, "+strconv.Quote(allowed), func(t *testing.T) {
			x.checkClaims(t, func() {
				p := x.peer(t)
				for id := uint32(1); id < 20; id += 2 {
					if err := p.open(id, userv1connect.UserServiceBatchCreateUsersProcedure); err != nil {
						t.Fatal(err)
					}
					if err := p.WriteData(id, false, []byte(allowed)); err != nil {
						t.Fatal(err)
					}
				}
			})
		})
	}
}

// checkClaims makes a claim on many connections and checks the heap while they are open. (The
// resident set does not include untouched pages.)
func (x *target) checkClaims(t *testing.T, claim func()) {
	t.Helper()
	const connections, each = 50, 256 << 10
	before := x.heapNow(t)
	for range connections {
		claim()
	}
	for range 100 { // until the server has read them
		x.get(t)
	}
	if grown := x.heapNow(t) - before; grown > connections*each {
		t.Errorf("heap grew by %d bytes, %d per connection", grown, grown/connections)
	} else {
		t.Logf("%d KiB per connection", grown/connections>>10)
	}
	x.disconnectAll(t)
	x.awaitIdle(t)
}
