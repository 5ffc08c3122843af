package browser

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

// CheckHost returns a check that protects a listener on a loopback address against DNS rebinding: it rejects requests
// whose Host is neither localhost, a loopback address, nor allowed, and reports whether the request goes on. An absent Host is
// accepted, because browsers always send one. On other addresses every Host is accepted.
func CheckHost(listener net.Listener, allowed []string, refuse Refusal) func(http.ResponseWriter, *http.Request) bool {
	addr, ok := listener.Addr().(*net.TCPAddr)
	loopback := ok && addr.IP.IsLoopback()
	return func(w http.ResponseWriter, r *http.Request) bool {
		host := hostName(r.Host)
		if !loopback || host == "" || isLoopbackHost(host) || slices.ContainsFunc(allowed, func(a string) bool { return strings.EqualFold(a, host) }) {
			return true
		}
		refuse(w, r, newHostNotAllowedError(host))
		return false
	}
}

func newHostNotAllowedError(host string) *user.Error {
	host = rpcstatus.Truncate(host, maxEchoed)
	return &user.Error{
		Code: user.PermissionDenied, Reason: user.HostNotAllowed, Metadata: map[string]string{"host": host},
		Message: fmt.Sprintf("host %q not allowed: expected localhost or a loopback address; --allow-host adds others", host),
	}
}

// hostName returns the host without port and brackets.
func hostName(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.Trim(host, "[]")
}

// isLoopbackHost reports whether the host is a loopback address, localhost or below it
// (RFC 6761, section 6.3).
func isLoopbackHost(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || err == nil && ip.Unmap().IsLoopback()
}

// ValidateHosts returns an error for an invalid value of --allow-host.
func ValidateHosts(hosts []string) error {
	for _, host := range hosts {
		if host == "" || hostName(host) != host || strings.ContainsAny(host, "/*, ") {
			return fmt.Errorf("--allow-host=%s: expected a host name without port, such as users.example.com", host)
		}
	}
	return nil
}
