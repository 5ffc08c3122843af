package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/server"
)

// healthTimeout bounds a health check, and maxHealthBytes its response.
const (
	healthTimeout  = 5 * time.Second
	maxHealthBytes = 64 << 10
)

// healthCommand is userd health.
type healthCommand struct {
	AdminListen string `default:"127.0.0.1:2112" help:"Admin listener of the server: HOST:PORT or unix:PATH."`
}

// Run prints the readiness of a running server, and fails if it is not ready.
func (c *healthCommand) Run(ctx context.Context, to console) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	client := http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return server.Dial(ctx, c.AdminListen) },
	}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/readyz", http.NoBody)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("no response from --admin-listen=%s: %w", c.AdminListen, err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHealthBytes))
	if err != nil {
		return fmt.Errorf("read health: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		return errors.New(strings.TrimSpace(string(body)))
	}
	_, err = to.out.Write(body)
	return err
}
