// Package forwarded finds the address of a client behind trusted proxies, from the headers Forwarded (RFC 7239) and
// X-Forwarded-For.
package forwarded

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// UnixPeer is the address of all peers of a Unix socket.
const UnixPeer = "unix"

// Proxies are the peers whose Forwarded and X-Forwarded-For headers are trusted.
type Proxies struct {
	prefixes []netip.Prefix
	unix     bool // the peers of a Unix socket
}

// Parse parses the values of --trusted-proxy.
func Parse(values []string) (Proxies, error) {
	var p Proxies
	for _, value := range values {
		if value == UnixPeer {
			p.unix = true
			continue
		}
		prefix, err := parsePrefix(value)
		if err != nil {
			return p, fmt.Errorf("--trusted-proxy=%s: expected an address, a CIDR such as 10.0.0.0/8, or unix", value)
		}
		p.prefixes = append(p.prefixes, prefix)
	}
	return p, nil
}

// parsePrefix parses a CIDR, or an address as its single-address CIDR. IPv4-mapped IPv6 is an error,
// because addresses are compared as IPv4.
func parsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if addr, addrErr := netip.ParseAddr(text); addrErr == nil && addr.Zone() == "" {
		prefix, err = addr.Prefix(addr.BitLen())
	}
	if err == nil && prefix.Addr().Is4In6() {
		err = fmt.Errorf("%s is IPv4-mapped IPv6", text)
	}
	return prefix.Masked(), err
}

// Handler sets RemoteAddr, which limits and logs use, to the address of the client. All
// peers of a Unix socket have the same address, because they choose their own names.
func Handler(socket bool, p Proxies, next http.Handler) http.Handler {
	if !socket && !p.any() {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if socket {
			r.RemoteAddr = UnixPeer
		}
		r.RemoteAddr = p.client(r.RemoteAddr, r.Header)
		next.ServeHTTP(w, r)
	})
}

func (p Proxies) any() bool { return p.unix || len(p.prefixes) > 0 }

// client returns the address of the client of a request from peer: peer itself, unless it is a trusted
// proxy. The headers are read from the right up to the first address that is not a trusted proxy;
// the rest is unverified. At an invalid element the proxy that reported it counts as the client.
//
// If both headers are present and differ, both are ignored: a proxy may set only one of them.
func (p Proxies) client(peer string, header http.Header) string {
	if !p.trusts(peer) {
		return peer
	}
	client, found := p.walk(peer, forwardedFor(header.Values("X-Forwarded-For")))
	other, foundOther := p.walk(peer, forwarded(header.Values("Forwarded")))
	switch {
	case found && foundOther && hostOf(client) != hostOf(other):
		return peer
	case foundOther && (!found || client == hostOf(other)):
		return other // may have the port
	}
	return client
}

// walk reads the hops from the right. found is false if the last one is missing.
func (p Proxies) walk(peer string, hops []string) (client string, found bool) {
	client = peer
	if len(hops) == 0 || hops[len(hops)-1] == "" {
		return peer, false
	}
	for _, hop := range slices.Backward(hops) {
		addr, ok := parseHop(hop)
		if !ok {
			break
		}
		client = addr
		if !p.trusts(addr) {
			break
		}
	}
	return client, true
}

// trusts reports whether an address, with or without port, is a trusted proxy.
func (p Proxies) trusts(peer string) bool {
	if peer == UnixPeer {
		return p.unix
	}
	addr, err := netip.ParseAddr(hostOf(peer))
	return err == nil && slices.ContainsFunc(p.prefixes, func(prefix netip.Prefix) bool { return prefix.Contains(addr.Unmap()) })
}

// TrustsAddr reports whether the peer of a connection is a trusted proxy.
func (p Proxies) TrustsAddr(peer net.Addr) bool {
	if peer.Network() == "unix" {
		return p.unix
	}
	return p.trusts(peer.String())
}

// parseHop returns the canonical form of an address, with or without port, of either header.
func parseHop(text string) (addr string, ok bool) {
	if at, err := netip.ParseAddrPort(text); err == nil && at.Addr().Zone() == "" {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String(), true
	}
	if inner, found := strings.CutPrefix(text, "["); found && strings.HasSuffix(inner, "]") {
		text = strings.TrimSuffix(inner, "]")
	}
	ip, err := netip.ParseAddr(text)
	if err != nil || ip.Zone() != "" {
		return "", false
	}
	return ip.Unmap().String(), true
}

// hostOf returns an address without port.
func hostOf(addr string) string {
	if at, err := netip.ParseAddrPort(addr); err == nil {
		return at.Addr().String()
	}
	return addr
}

// forwardedFor splits the values of X-Forwarded-For.
func forwardedFor(values []string) (hops []string) {
	for _, value := range values {
		for hop := range strings.SplitSeq(value, ",") {
			hops = append(hops, strings.TrimSpace(hop))
		}
	}
	return hops
}

// forwarded returns the "for" parameters of Forwarded (RFC 7239), "" for an element without one.
func forwarded(values []string) (hops []string) {
	for _, value := range values {
		for _, element := range splitUnquoted(value, ',') {
			hop := ""
			for _, pair := range splitUnquoted(element, ';') {
				name, text, _ := strings.Cut(strings.TrimSpace(pair), "=")
				if strings.EqualFold(name, "for") {
					hop = unquote(text)
				}
			}
			hops = append(hops, hop)
		}
	}
	return hops
}

// splitUnquoted splits text at separators outside of quoted strings.
func splitUnquoted(text string, separator byte) (parts []string) {
	quoted, begin := false, 0
	for i := 0; i < len(text); i++ {
		switch {
		case quoted && text[i] == '\\':
			i++
		case text[i] == '"':
			quoted = !quoted
		case text[i] == separator && !quoted:
			parts = append(parts, text[begin:i])
			begin = i + 1
		}
	}
	return append(parts, text[begin:])
}

// unquote returns the content of a quoted string. Escapes are left, because no valid address has one.
func unquote(text string) string {
	if len(text) >= 2 && text[0] == '"' && text[len(text)-1] == '"' {
		return text[1 : len(text)-1]
	}
	return text
}
