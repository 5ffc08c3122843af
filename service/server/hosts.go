package server

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/user"
)

// ownHosts returns the handler for requests whose host is a name of this machine, or one
// of allowed; refuse responds to the others. It matters where authentication is off and only
// this machine can connect: a page from anywhere can give its own name the address of
// this machine, and to the visitor's browser it is then of the same origin as this
// server. The browser still sends that name as the host. A request that names no host
// is not a browser's. On an address that other machines reach, every host is served.
func ownHosts(listener net.Listener, allowed []string, refuse refusal, next http.Handler) http.Handler {
	addr, ok := listener.Addr().(*net.TCPAddr)
	if !ok || !addr.IP.IsLoopback() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := hostName(r.Host)
		if host == "" || ownHost(host) || slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, host) }) {
			next.ServeHTTP(w, r)
			return
		}
		refuse(w, r, newHostNotAllowedError(host))
	})
}

func newHostNotAllowedError(host string) *user.Error {
	host = shorten(host)
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.HostNotAllowed, Metadata: map[string]string{"host": host},
		Message: fmt.Sprintf("expected localhost or a loopback address as the host, not %q: --allow-host adds others", host),
	}
}

// hostName gives a host without its port, and an address of IPv6 without brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(host, "[]")
}

// ownHost reports whether a name means this machine wherever it is looked up
// (RFC 6761, section 6.3).
func ownHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

func (c *Config) validateHosts() error {
	for _, host := range c.AllowHost {
		if host == "" || hostName(host) != host || strings.ContainsAny(host, "/*, ") {
			return fmt.Errorf("--allow-host=%s: expected the name of a host without a port, such as users.example.com", host)
		}
	}
	return nil
}
