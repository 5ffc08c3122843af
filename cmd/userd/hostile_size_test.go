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

const messageLimit = 4 << 20 // as it is without a flag

// way is a way to send a message that is compressed.
type way struct {
	name, path, kind, encoding string // encoding is the header that says so
	http2, prefix              bool
}

func compressedWays() []way {
	const (
		unary, stream = userv1connect.UserServiceCreateUserProcedure, userv1connect.UserServiceBatchCreateUsersProcedure
		connectHeader = "Connect-Content-Encoding"
	)
	return []way{
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

// web returns a client for plain requests.
func web(http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetUnencryptedHTTP2(http2)
	return &http.Client{Transport: &http.Transport{Protocols: protocols, DisableCompression: true}}
}

// said sends a request and returns all that is answered, with header and trailers.
func said(ctx context.Context, t *testing.T, client *http.Client, request *http.Request) string {
	t.Helper()
	answer, err := client.Do(request.WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, _ := io.ReadAll(answer.Body) // a part of it says enough
	return strconv.Itoa(answer.StatusCode) + " " + string(body) + " " +
		answer.Header.Get("Grpc-Message") + answer.Trailer.Get("Grpc-Message")
}

// A small message that would inflate to a large one costs about as much as one of the
// largest size that is allowed.
func TestGzipBombs(t *testing.T) {
	t.Parallel()
	const inflated = 512 << 20
	var body bytes.Buffer
	w := gzip.NewWriter(&body)
	for zeros := make([]byte, 1<<20); body.Len() < inflated/1032; { // deflate makes it that much smaller
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, way := range compressedWays() {
		t.Run(way.name, func(t *testing.T) { throwAll(t, way, bomb{body: body.Bytes(), wants: "limit is 4194304 bytes"}) })
	}
}

// Nothing is allocated for what a message merely claims to be.
func TestClaimsOfSize(t *testing.T) {
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
			x.claims(t, func() { x.dial(t, begins) })
		})
	}
	for _, allowed := range []string{claim, "\x00\x00\x3f\xff\xff"} {
		t.Run("gRPC, "+strconv.Quote(allowed), func(t *testing.T) {
			x.claims(t, func() {
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

// claims makes the claim over many connections, and looks at the memory while they
// are open. It asks for the heap, since pages that nobody touches are not the process's
// for the system. What each connection costs for itself is some ten KiB.
func (x *target) claims(t *testing.T, claim func()) {
	t.Helper()
	const connections, each = 50, 256 << 10
	before := x.heapNow(t)
	for range connections {
		claim()
	}
	for range 100 { // by then the server has seen them all
		x.get(t)
	}
	if grown := x.heapNow(t) - before; grown > connections*each {
		t.Errorf("the memory grew by %d bytes, for each connection %d", grown, grown/connections)
	} else {
		t.Logf("%d KiB for each connection", grown/connections>>10)
	}
	x.letGo(t)
	x.rests(t)
}
