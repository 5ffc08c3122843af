// Command conformance is the server under test of the Connect conformance runner: the complete
// server of package server with the ConformanceService mounted. It reads a ServerCompatRequest
// from standard input and writes a ServerCompatResponse with its address to standard output.
package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"

	conformancev1 "github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1"
	"github.com/yourorg/userservice/service/conformance/internal/gen/connectrpc/conformance/v1/conformancev1connect"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, in io.Reader, out io.Writer) error {
	var request conformancev1.ServerCompatRequest
	if err := readMessage(in, &request); err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	s, err := newServer(ctx, dir, &request)
	if err != nil {
		return err
	}
	host, text, err := net.SplitHostPort(s.Addr().String())
	if err != nil {
		return err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return err
	}
	response := &conformancev1.ServerCompatResponse{
		Host: host, Port: uint32(port), PemCert: request.GetServerCreds().GetCert(),
	}
	if err := writeMessage(out, response); err != nil {
		return fmt.Errorf("write response: %w", err)
	}
	return s.Run(ctx)
}

// newServer returns a server with the defaults of userd and the settings of the request.
func newServer(ctx context.Context, dir string, request *conformancev1.ServerCompatRequest) (*server.Server, error) {
	config, err := server.Defaults()
	if err != nil {
		return nil, err
	}
	config.Listen, config.AdminListen = "127.0.0.1:0", ""
	config.HTTP2 = cmp.Or(os.Getenv("USERD_HTTP2"), config.HTTP2)
	if limit := request.GetMessageReceiveLimit(); limit > 0 {
		config.MaxMessageBytes = server.Bytes(limit)
	}
	if request.GetUseTls() {
		err = errors.Join(
			writeFile(&config.TLSCert, dir, "cert.pem", request.GetServerCreds().GetCert()),
			writeFile(&config.TLSKey, dir, "key.pem", request.GetServerCreds().GetKey()),
		)
	}
	if ca := request.GetClientTlsCert(); len(ca) > 0 {
		// The runner's client certificate has no name that a rule could match, so the service
		// is open to all callers. The handshake verifies the certificate.
		err = errors.Join(err,
			writeFile(&config.TLSClientCA, dir, "ca.pem", ca),
			writeFile(&config.TLSClientRules, dir, "rules.json", []byte(`{"rules":[{"uri":"spiffe://example.org/none","permissions":["users.read"]}]}`)))
	}
	if err != nil {
		return nil, err
	}
	log := slog.New(telemetry.Sanitize(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})))
	metrics := telemetry.NewMetrics(telemetry.Build{Version: "conformance"})
	store, storage, err := server.OpenStore(ctx, server.StoreOptions{Address: "sqlite:" + filepath.Join(dir, "users.db"), Logger: log, Metrics: metrics})
	if err != nil {
		return nil, err
	}
	s, err := server.New(ctx, config, server.Parts{
		Store: store, Storage: storage, Logger: log, Metrics: metrics,
		Services: []server.Service{{
			Open:       true,
			Descriptor: conformancev1.File_connectrpc_conformance_v1_service_proto.Services().ByName("ConformanceService"),
			New: func(options ...connect.HandlerOption) (string, http.Handler) {
				return conformancev1connect.NewConformanceServiceHandler(service{}, options...)
			},
		}},
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return s, nil
}

func writeFile(path *string, dir, name string, data []byte) error {
	*path = filepath.Join(dir, name)
	return os.WriteFile(*path, data, 0o600)
}

// readMessage reads a message prefixed with its length as a big-endian uint32.
func readMessage(in io.Reader, message proto.Message) error {
	var size [4]byte
	if _, err := io.ReadFull(in, size[:]); err != nil {
		return err
	}
	data := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(in, data); err != nil {
		return err
	}
	return proto.Unmarshal(data, message)
}

// writeMessage writes a message in the format of readMessage.
func writeMessage(out io.Writer, message proto.Message) error {
	data, err := proto.Marshal(message)
	if err != nil {
		return err
	}
	_, err = out.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(data))), data...))
	return err
}
