package main

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

func TestExtendStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	extendStart()
	if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 256)
	n, err := conn.Read(buffer)
	if got, want := string(buffer[:n]), "EXTEND_TIMEOUT_USEC=60000000"; err != nil || got != want {
		t.Errorf("notification = %q, %v, want %q", got, err, want)
	}
}
