package server_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
)

// Repeated map entries of one key count once, and later fields of the message are still decoded.
func TestRepeatedMapEntriesAreDecoded(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	entry, err := proto.Marshal(&userv1.CreateUserRequest{Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	stray := protowire.AppendVarint(protowire.AppendTag(nil, 2000, protowire.VarintType), 1)
	names, err := proto.Marshal(&userv1.CreateUserRequest{Username: "anna", Email: "anna@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	message := slices.Concat(names, bytes.Repeat(slices.Concat(entry, stray), 65))
	message = protowire.AppendVarint(protowire.AppendTag(message, 6, protowire.VarintType), 1) // validate_only
	for _, p := range inProtobuf() {
		if err := callRaw(t.Context(), s, p, "CreateUser", bytes.Clone(message)); err != nil {
			t.Errorf("%s: %v, want success", p.Name, err)
		}
	}
	if head, err := s.Store().Head(t.Context()); err != nil || head.Position != 0 {
		t.Errorf("the log has %d rows, %v; want none after validate_only", head.Position, err)
	}
}

// stuck is a body that blocks after its beginning.
type stuck struct {
	io.Reader

	done <-chan struct{}
}

func (s stuck) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == nil {
		return n, nil
	}
	<-s.done
	return 0, io.ErrUnexpectedEOF
}

// A caller without the permission is rejected before its message is read, for every spelling of the
// path. HTTP/1.1 only: the HTTP/2 client of net/http waits for the request body.
func TestUnauthorizedBeforeMessageIsRead(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	token := g.token(t, "ann", time.Hour, auth.ActivitiesRead)
	const rpc = "/user.v1.UserService/"
	for name, c := range map[string]struct {
		path, kind string
		status     int
	}{
		"gRPC-Web":      {rpc + "UpdateUsers", "application/grpc-web+proto", http.StatusOK},
		"Connect":       {rpc + "UpdateUsers", "application/proto", http.StatusForbidden},
		"Connect, JSON": {rpc + "Update%55sers", "application/json", http.StatusForbidden},
		"REST":          {"/api/v1/users:batchUpdate", "application/json", http.StatusForbidden},
		"REST, escaped": {"/api/v1/%75sers:batchUpdate", "application/json", http.StatusForbidden},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			done := make(chan struct{})
			defer close(done)
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://userd.test"+c.path, stuck{strings.NewReader("\x01"), done})
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", c.kind)
			for _, encoding := range []string{"Content-Encoding", "Grpc-Encoding"} {
				request.Header.Set(encoding, "gzip")
			}
			response, err := g.as(false, token).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = response.Body.Close() }()
			if status := response.Header.Get("Grpc-Status"); response.StatusCode != c.status || c.status == http.StatusOK && status != "" && status != "7" {
				t.Errorf("status = %d, grpc-status = %q; want %d and PERMISSION_DENIED", response.StatusCode, status, c.status)
			}
		})
	}
}

// Requests and responses of health checks are small, also decompressed.
func TestHealthChecksAreSmall(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	for _, size := range []int{1000, 4 << 20} {
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if _, err := w.Write([]byte(`{"service":"` + strings.Repeat("a", size) + `"}`)); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/%43heck"} {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://userd.test"+path, bytes.NewReader(packed.Bytes()))
			if err != nil {
				t.Fatal(err)
			}
			request.Header.Set("Content-Type", "application/json")
			request.Header.Set("Content-Encoding", "gzip")
			response, err := s.HTTP(false).Do(request)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(response.Body)
			_ = response.Body.Close()
			if err != nil || response.StatusCode == http.StatusOK || len(body) > 2<<10 {
				t.Errorf("%s of %d bytes: status %d with %d bytes, %v; want a short rejection", path, size, response.StatusCode, len(body), err)
			}
		}
	}
}
