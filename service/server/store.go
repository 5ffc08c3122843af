package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/yourorg/userservice/service/store/sqlite"
	"github.com/yourorg/userservice/service/user"
)

// StorePath returns the path within an address of the form sqlite:PATH.
func StorePath(address string) (string, error) {
	switch kind, path, _ := strings.Cut(address, ":"); kind {
	case "sqlite":
		if path == "" {
			return "", errors.New("--store=sqlite: names no file: expected sqlite:PATH")
		}
		return path, nil
	case "postgres", "postgresql":
		return "", errors.New("--store: PostgreSQL is not supported by this build: expected sqlite:PATH")
	}
	return "", fmt.Errorf("--store=%s: expected sqlite:PATH", address)
}

// OpenStore opens the store at the address.
func OpenStore(ctx context.Context, address string, log *slog.Logger) (user.Store, error) {
	path, err := StorePath(address)
	if err != nil {
		return nil, err
	}
	return sqlite.Open(ctx, sqlite.Options{Path: path, Logger: log})
}
