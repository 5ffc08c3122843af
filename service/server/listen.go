package server

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// socketPrefix is the prefix of the address of a Unix socket.
const socketPrefix = "unix:"

// FileMode is the permission bits of a file. Its text is octal.
type FileMode fs.FileMode

// UnmarshalText parses permission bits.
func (m *FileMode) UnmarshalText(text []byte) error {
	bits, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || bits > 0o777 {
		return fmt.Errorf("expected permission bits such as 0660, not %q", text)
	}
	*m = FileMode(bits)
	return nil
}

// String formats the bits in octal.
func (m FileMode) String() string { return fmt.Sprintf("%#o", uint32(m)) }

// listen listens on an address: HOST:PORT or unix:PATH.
func listen(ctx context.Context, address string, mode FileMode) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, socketPrefix); ok {
		return listenSocket(ctx, path, fs.FileMode(mode))
	}
	var config net.ListenConfig
	return config.Listen(ctx, network(address), address)
}

// Dial connects to a listener by its address, in the format of --listen.
func Dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	if path, ok := strings.CutPrefix(address, socketPrefix); ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	return dialer.DialContext(ctx, network(address), address)
}

// network returns "tcp4" for an IPv4 literal, because "tcp" would let 0.0.0.0 listen on IPv6 too.
func network(address string) string {
	host, _, err := net.SplitHostPort(address)
	if ip, ipErr := netip.ParseAddr(host); err == nil && ipErr == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

func isUnixSocket(l net.Listener) bool { return l.Addr().Network() == "unix" }

// Address returns the address of a listener in the format of --listen.
func Address(l net.Listener) string {
	if isUnixSocket(l) {
		return socketPrefix + l.Addr().String()
	}
	return l.Addr().String()
}

// validateSocket validates the path of a Unix socket. Abstract sockets (@) are rejected, because
// they have no permissions.
func validateSocket(flag, path string) error {
	longest := len(syscall.RawSockaddrUnix{}.Path) - 1
	if path == "" || strings.HasPrefix(path, "@") || strings.ContainsRune(path, 0) || strings.HasSuffix(path, "/") {
		return fmt.Errorf("--%s=%s%s: expected unix:PATH, such as unix:/run/userd.sock", flag, socketPrefix, path)
	}
	if len(path) > longest {
		return fmt.Errorf("--%s=%s%s: path of a socket has %d bytes, the maximum is %d", flag, socketPrefix, path, len(path), longest)
	}
	return nil
}
