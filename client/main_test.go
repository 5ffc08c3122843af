package client_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startServer runs a server for an example until stop.
func startServer() (address string, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "users")
	if err != nil {
		panic(err)
	}
	log, metrics := slog.New(slog.DiscardHandler), telemetry.NewMetrics(telemetry.Build{})
	store, storage, err := server.OpenStore(ctx, server.StoreOptions{Address: "sqlite:" + filepath.Join(dir, "users.db"), Logger: log, Metrics: metrics})
	if err != nil {
		panic(err)
	}
	config, err := server.Defaults()
	if err != nil {
		panic(err)
	}
	config.Listen, config.AdminListen = "127.0.0.1:0", ""
	running, err := server.New(ctx, config, server.Parts{Store: store, Storage: storage, Logger: log, Metrics: metrics})
	if err != nil {
		panic(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- running.Run(ctx) }()
	return running.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			panic(err)
		}
		_ = os.RemoveAll(dir)
	}
}
