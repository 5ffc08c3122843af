package auth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// CertificateRulesOptions configure CertificateRules.
type CertificateRulesOptions struct {
	FileOptions

	// Authorities returns the current client CAs, as Authorities.Pool does. nil: the
	// verification at the handshake is sufficient for the life of the connection.
	Authorities func() *x509.CertPool
}

// CertificateRules maps the names of client certificates to permissions. The file is JSON:
//
//	{"rules": [
//	  {"uri": "spiffe://example.org/ns/prod/sa/web", "permissions": ["users.read"]},
//	  {"uri": "spiffe://example.org/ns/batch/sa/*", "permissions": ["users.write"]},
//	  {"dns": "*.clients.example.org", "permissions": ["status.read", "status.write"]}
//	]}
//
// A pattern is matched with the whole name. A path segment or DNS label that is "*" matches
// exactly one segment or label. Permissions of all matching rules are combined. An unknown
// member or permission is an error.
//
// Run reloads the file. It is safe for concurrent use.
type CertificateRules struct {
	*watchedFile[ruleSet]

	authorities func() *x509.CertPool
	cache       cache[x509.CertPool, verdict]
}

// LoadCertificateRules reads the rules.
func LoadCertificateRules(opts CertificateRulesOptions) (*CertificateRules, error) {
	w, err := watchFile(opts.FileOptions, parseRules)
	if err != nil {
		return nil, fmt.Errorf("certificate rules: %w", err)
	}
	return &CertificateRules{watchedFile: w, authorities: opts.Authorities}, nil
}

type rule struct {
	pattern     certificateName
	permissions Permissions
}

// ruleSet is immutable.
type ruleSet []rule

// parseRules uses a JSON decoder that rejects duplicate members and is case-sensitive, so the
// file has only one reading.
func parseRules(body []byte) (ruleSet, error) {
	var file map[string][]map[string]json.RawMessage
	if err := json.Unmarshal(body, &file); err != nil {
		return nil, err
	}
	if file["rules"] == nil || len(file) != 1 {
		return nil, errors.New(`expected {"rules": [...]} and nothing else`)
	}
	set := make(ruleSet, 0, len(file["rules"]))
	for i, members := range file["rules"] {
		one, err := parseRule(members)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		set = append(set, one)
	}
	return set, nil
}

func parseRule(members map[string]json.RawMessage) (rule, error) {
	var uri, dns string
	var permissions []Permission
	dst := map[string]any{"uri": &uri, "dns": &dns, "permissions": &permissions}
	for name, raw := range members {
		if dst[name] == nil {
			return rule{}, fmt.Errorf("unknown member %q", name)
		}
		if err := json.Unmarshal(raw, dst[name]); err != nil {
			return rule{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	pattern, err := parsePattern(uri, dns)
	if err != nil {
		return rule{}, err
	}
	for _, p := range permissions {
		if p.bit() == 0 {
			return rule{}, fmt.Errorf("unknown permission %q", string(p))
		}
	}
	return rule{pattern: pattern, permissions: PermissionsOf(permissions...)}, nil
}

func parsePattern(uri, dns string) (certificateName, error) {
	var pattern certificateName
	var ok bool
	switch {
	case (uri == "") == (dns == ""):
		return pattern, errors.New("expected either uri or dns")
	case dns != "":
		pattern, ok = dnsName(dns)
	default:
		if u, err := url.Parse(uri); err == nil {
			pattern, ok = uriName(u)
		}
	}
	if !ok {
		return pattern, errors.New("pattern is not a valid certificate name")
	}
	for i, part := range pattern.parts {
		fixed := !pattern.dns && i < 3 // scheme and host of a URI
		if strings.Contains(part, "*") && (part != "*" || fixed) {
			return pattern, errors.New("* must be a whole path segment or DNS label")
		}
	}
	return pattern, nil
}

func (s ruleSet) match(name certificateName) (permissions Permissions, found bool) {
	for _, r := range s {
		if r.pattern.covers(name) {
			permissions |= r.permissions
			found = true
		}
	}
	return permissions, found
}

func (c certificateName) covers(name certificateName) bool {
	if c.dns != name.dns || len(c.parts) != len(name.parts) {
		return false
	}
	for i, part := range c.parts {
		if part != "*" && part != name.parts[i] {
			return false
		}
	}
	return true
}
