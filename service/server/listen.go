package server

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
)

// socketPrefix begins an address that is the file of a Unix socket.
const socketPrefix = "unix:"

// FileMode is the permission bits of a file. Its text is octal.
type FileMode fs.FileMode

// UnmarshalText reads permission bits.
func (m *FileMode) UnmarshalText(text []byte) error {
	bits, err := strconv.ParseUint(string(text), 8, 32)
	if err != nil || bits > 0o777 {
		return fmt.Errorf("expected permission bits such as 0660, not %q", text)
	}
	*m = FileMode(bits)
	return nil
}

// String gives the bits as they are written in a flag.
func (m FileMode) String() string { return fmt.Sprintf("%#o", uint32(m)) }

// listen opens an address: HOST:PORT or unix:PATH.
func listen(ctx context.Context, address string, mode FileMode) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, socketPrefix); ok {
		return listenSocket(ctx, path, fs.FileMode(mode))
	}
	var config net.ListenConfig
	return config.Listen(ctx, network(address), address)
}

// network gives the network of an address. An IPv4 literal means IPv4 alone: 0.0.0.0 would
// listen on IPv6 too.
func network(address string) string {
	host, _, err := net.SplitHostPort(address)
	if ip, ipErr := netip.ParseAddr(host); err == nil && ipErr == nil && ip.Is4() {
		return "tcp4"
	}
	return "tcp"
}

// onSocket reports whether a listener is a Unix socket.
func onSocket(l net.Listener) bool { return l.Addr().Network() == "unix" }

// Address gives the address of a listener as --listen takes it.
func Address(l net.Listener) string {
	if onSocket(l) {
		return socketPrefix + l.Addr().String()
	}
	return l.Addr().String()
}

// validateSocket says what is wrong with the path of a socket. An abstract one, whose name
// begins with @, is refused: it has no permissions.
func validateSocket(flag, path string) error {
	longest := len(syscall.RawSockaddrUnix{}.Path) - 1
	if path == "" || strings.HasPrefix(path, "@") || strings.ContainsRune(path, 0) || strings.HasSuffix(path, "/") {
		return fmt.Errorf("--%s=%s%s: expected unix:PATH with the path of a file, such as unix:/run/userd.sock", flag, socketPrefix, path)
	}
	if len(path) > longest {
		return fmt.Errorf("--%s=%s%s: the path has %d bytes, and a socket's has at most %d", flag, socketPrefix, path, len(path), longest)
	}
	return nil
}

// withClientAddress returns the handler whose requests have the client's address as
// their RemoteAddr, which limits and logs use. The peers of a Unix socket have one address
// for all: they choose their own names.
func withClientAddress(socket bool, p trustedProxies, next http.Handler) http.Handler {
	if !socket && !p.any() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if socket {
			r.RemoteAddr = unixPeer
		}
		r.RemoteAddr = p.client(r.RemoteAddr, r.Header)
		next.ServeHTTP(w, r)
	})
}
