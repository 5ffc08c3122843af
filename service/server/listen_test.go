//go:build unix

package server

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestIPv4LiteralListensOnIPv4Only(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"0.0.0.0:0": "0.0.0.0", "127.0.0.1:0": "127.0.0.1", "[::1]:0": "::1", ":0": "::", "[::]:0": "::",
	} {
		l, err := listen(t.Context(), address, 0)
		if err != nil {
			if strings.Contains(address, "::") {
				t.Logf("no IPv6 here: %v", err)
				continue
			}
			t.Fatal(err)
		}
		got := l.Addr().(*net.TCPAddr) //nolint:errcheck // TCP listeners have TCP addresses
		if got.IP.String() != want {
			t.Errorf("listen(%s) is at %s, want %s", address, got.IP, want)
		}
		if want == "0.0.0.0" {
			var dialer net.Dialer
			if conn, err := dialer.DialContext(t.Context(), "tcp6", net.JoinHostPort("::1", strings.TrimPrefix(l.Addr().String(), "0.0.0.0:"))); err == nil {
				_ = conn.Close()
				t.Errorf("listen(%s) accepts IPv6", address)
			}
		}
		_ = l.Close()
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "userd.sock")
	l, err := listen(t.Context(), "unix:"+path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("the socket has permissions %o, want 600", got)
	}
	if _, err := listen(t.Context(), "unix:"+path, 0o600); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second listener: got %v", err)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatalf("the first listener is gone: %v", err)
	}
	_ = conn.Close()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// The stale socket of a killed process is replaced, other files are not.
func TestStaleSocket(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	stale := filepath.Join(dir, "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	replaced, err := listen(t.Context(), "unix:"+stale, 0o660)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	_ = replaced.Close()

	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(stale, link); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		file: "is not a socket", dir: "is not a socket", link: "is not a socket",
		filepath.Join(dir, "missing", "userd.sock"): "directory of",
	} {
		if _, err := listen(t.Context(), "unix:"+path, 0o660); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("listen(%s): got %v, want %q", path, err, want)
		}
	}
	if text, err := os.ReadFile(file); err != nil || string(text) != "text" {
		t.Errorf("the file has %q, %v", text, err)
	}
}

// Of several processes that start concurrently over a stale socket, one listens and stays reachable.
func TestConcurrentListenOnSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "userd.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	_ = left.Close()
	const n = 16
	won := make(chan net.Listener, n)
	for range n {
		go func() {
			l, _ := listen(context.Background(), "unix:"+path, 0o660)
			won <- l
		}()
	}
	listeners := 0
	for range n {
		if l := <-won; l != nil {
			listeners++
			t.Cleanup(func() { _ = l.Close() })
		}
	}
	if listeners != 1 {
		t.Errorf("%d listen, want 1", listeners)
	}
	var dialer net.Dialer
	conn, err := dialer.DialContext(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
}

func TestSocketAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"unix:/run/userd.sock": "", "unix:userd.sock": "", "unix:" + strings.Repeat("a", 107): "",
		"unix:": "expected unix:PATH", "unix:@name": "expected unix:PATH", "unix:/run/": "expected unix:PATH", "unix:a\x00b": "expected unix:PATH",
		"unix:" + strings.Repeat("a", 200): "path of a socket has 200 bytes", "0.0.0.0": "expected HOST:PORT", "localhost:http": "expected HOST:PORT",
	} {
		if err := validateAddress("listen", address); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("validateAddress(%q): got %v, want %q", address, err, want)
		}
	}
}
