package browser

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/idna"
)

// originPattern is a value of --cors-origin: an origin, whose host may begin with a wildcard for one label.
type originPattern struct {
	before, after string // the origin around the wildcard; after is empty without one
}

// defaultPorts are the ports that browsers omit from an origin.
var defaultPorts = map[string]string{"http": "80", "https": "443", "ftp": "21", "ws": "80", "wss": "443"} // never changed

const wildcard = "*."

// parseOrigin parses a value of --cors-origin. Browsers send the canonical form (RFC 6454, section 6.2),
// so a value in another form could not match and is an error with the canonical form.
func parseOrigin(value string) (originPattern, error) {
	u, err := url.Parse(value)
	switch {
	case err != nil || !strings.Contains(value, "://") || u.Host == "":
		return originPattern{}, fmt.Errorf("--cors-origin=%s: expected an origin such as https://app.example.com or https://*.example.com", value)
	case u.User != nil || u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(value, "#"):
		return originPattern{}, fmt.Errorf("--cors-origin=%s: expected an origin without user, path and query: %s://%s", value, u.Scheme, u.Host)
	}
	host, isWildcard := strings.CutPrefix(u.Hostname(), wildcard)
	host, err = canonicalHost(host, strings.HasPrefix(u.Host, "["))
	if err == nil && isWildcard && isAddress(host) {
		err = errors.New("an address has no subdomains")
	}
	port := ""
	if err == nil {
		port, err = canonicalPort(u)
	}
	if err != nil {
		return originPattern{}, fmt.Errorf("--cors-origin=%s: %w", value, err)
	}
	scheme, label := strings.ToLower(u.Scheme)+"://", ""
	if isWildcard {
		label = wildcard
	}
	if form := scheme + label + host + port; form != value {
		return originPattern{}, fmt.Errorf("--cors-origin=%s can never match: browsers send %s", value, form)
	}
	if !isWildcard {
		return originPattern{before: value}, nil
	}
	return originPattern{before: scheme, after: "." + host + port}, nil
}

// canonicalHost returns a host in the form that browsers send.
func canonicalHost(host string, bracketed bool) (string, error) {
	if bracketed {
		addr, err := netip.ParseAddr(host)
		if err != nil || addr.Zone() != "" {
			return "", errors.New("expected an IPv6 address in brackets")
		}
		return "[" + addr.String() + "]", nil
	}
	if strings.Contains(host, "*") {
		return "", errors.New("expected * as the whole of the first label, such as https://*.example.com")
	}
	ascii, err := idna.New(idna.MapForLookup(), idna.Transitional(false), idna.StrictDomainName(false)).ToASCII(host)
	if err != nil || ascii == "" || strings.ContainsAny(ascii, " !\"$%&'()+,;<=>\\^`{|}") || strings.Contains(ascii, "..") || strings.HasPrefix(ascii, ".") {
		return "", fmt.Errorf("expected a host name, got %q", host)
	}
	labels := strings.Split(strings.TrimSuffix(ascii, "."), ".")
	if last := labels[len(labels)-1]; isNumber(last) {
		if addr, err := netip.ParseAddr(ascii); err != nil || !addr.Is4() {
			return "", fmt.Errorf("expected an IPv4 address or a host name, got %q: browsers parse a host with a numeric last label as an address", host)
		}
	}
	return ascii, nil
}

func isNumber(label string) bool {
	_, err := strconv.ParseUint(label, 0, 64)
	return err == nil || !strings.ContainsFunc(label, func(r rune) bool { return r < '0' || r > '9' })
}

func isAddress(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// canonicalPort returns a port with its colon, or "" for the default port of the scheme.
func canonicalPort(u *url.URL) (string, error) {
	text := u.Port()
	if text == "" {
		return "", nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return "", fmt.Errorf("expected a port from 1 to 65535, got %s", text)
	}
	if text = strconv.FormatUint(port, 10); text == defaultPorts[strings.ToLower(u.Scheme)] {
		return "", nil
	}
	return ":" + text, nil
}

func (p originPattern) matches(origin string) bool {
	if p.after == "" {
		return origin == p.before
	}
	label, ok := strings.CutPrefix(origin, p.before)
	if !ok {
		return false
	}
	label, ok = strings.CutSuffix(label, p.after)
	return ok && label != "" && !strings.ContainsAny(label, ".:/@[]")
}

// Origins are the allowed origins.
type Origins []originPattern

// ParseOrigins parses the values of --cors-origin.
func ParseOrigins(values []string) (Origins, error) {
	var all Origins
	for _, value := range values {
		pattern, err := parseOrigin(value)
		if err != nil {
			return nil, err
		}
		all = append(all, pattern)
	}
	return all, nil
}

func (o Origins) allow(origin string) bool {
	return origin != "" && slices.ContainsFunc(o, func(p originPattern) bool { return p.matches(origin) })
}
