package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

// discardWriter discards a response, except for its status.
type discardWriter struct {
	header http.Header
	status int
}

func (w *discardWriter) Header() http.Header               { return w.header }
func (w *discardWriter) Write(p []byte) (int, error)       { return len(p), nil }
func (w *discardWriter) WriteHeader(status int)            { w.status = status }
func (w *discardWriter) Flush()                            {}
func (w *discardWriter) SetReadDeadline(time.Time) error   { return nil }
func (w *discardWriter) SetWriteDeadline(time.Time) error  { return nil }
func (w *discardWriter) EnableFullDuplex() error           { return nil }
func (w *discardWriter) WriteString(s string) (int, error) { return len(s), nil }

// BenchmarkHandler measures GetUser on the complete handler, without HTTP.
func BenchmarkHandler(b *testing.B) {
	s, id := benchServer(b)
	message, err := proto.Marshal(&userv1.GetUserRequest{UserId: id})
	if err != nil {
		b.Fatal(err)
	}
	envelope := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	for _, call := range []struct {
		name, method, path, contentType string
		major                           int
		body                            []byte
	}{
		{"gRPC", http.MethodPost, "/user.v1.UserService/GetUser", "application/grpc+proto", 2, envelope},
		{"Connect", http.MethodPost, "/user.v1.UserService/GetUser", "application/proto", 1, message},
		{"Connect JSON", http.MethodPost, "/user.v1.UserService/GetUser", "application/json", 1, []byte(`{"userId":"` + strconv.FormatInt(id, 10) + `"}`)},
		{"REST", http.MethodGet, "/api/v1/users/" + strconv.FormatInt(id, 10), "", 1, nil},
	} {
		b.Run(call.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, err := http.NewRequestWithContext(b.Context(), call.method, "http://127.0.0.1"+call.path, bytes.NewReader(call.body))
				if err != nil {
					b.Fatal(err)
				}
				r.RequestURI, r.RemoteAddr, r.ProtoMajor = call.path, "127.0.0.1:9", call.major
				r.Body = io.NopCloser(bytes.NewReader(call.body))
				if call.body == nil {
					r.Body = http.NoBody
				}
				if call.contentType != "" {
					r.Header.Set("Content-Type", call.contentType)
				}
				if call.major == 2 {
					r.Header.Set("Te", "trailers")
				}
				w := &discardWriter{header: make(http.Header)}
				s.public.server.Handler.ServeHTTP(w, r)
				if status := w.header.Get("Grpc-Status"); w.status > 200 || call.major == 2 && !strings.HasPrefix(w.header.Get(http.TrailerPrefix+"Grpc-Status")+status, "0") {
					b.Fatalf("status %d, headers %v", w.status, w.header)
				}
			}
		})
	}
}

// benchServer returns a server with one user.
func benchServer(b *testing.B) (s *Server, id int64) {
	b.Helper()
	log := slog.New(slog.DiscardHandler)
	cfg, err := Defaults()
	if err != nil {
		b.Fatal(err)
	}
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", "off"
	store, err := sqlite.Open(b.Context(), sqlite.Options{Path: filepath.Join(b.TempDir(), "users.db"), Logger: log})
	if err != nil {
		b.Fatal(err)
	}
	if s, err = New(b.Context(), cfg, Parts{Store: store, Logger: log}); err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	b.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	op, err := user.NewCreate(user.User{Username: "perfuser", Email: "p@example.com", Tags: []string{"a", "b"}})
	if err != nil {
		b.Fatal(err)
	}
	result, err := user.ApplyOne(b.Context(), store, user.Change{Op: op})
	if err != nil {
		b.Fatal(err)
	}
	return s, result.User.ID
}
