//go:build unix

package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// listenSocket listens on a Unix socket. It removes the stale socket of a killed process, with its
// directory locked against other processes that start. Closing the listener removes the file.
func listenSocket(ctx context.Context, path string, mode fs.FileMode) (net.Listener, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("directory of %s: %w", path, err)
	}
	defer func() { _ = dir.Close() }() // releases the lock
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	// With chmod instead, the socket would have wider permissions for a short time.
	defer syscall.Umask(syscall.Umask(0o777 &^ int(mode)))
	var config net.ListenConfig
	return config.Listen(ctx, "unix", path)
}

// removeStale removes the socket if no process listens on it.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("%s exists and is not a socket", path)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err == nil {
		return errors.Join(fmt.Errorf("another process listens on %s", path), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("check for another process on %s: %w", path, err)
	}
	return os.Remove(path)
}
