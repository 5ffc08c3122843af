package auth

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/go-jose/go-jose/v4/json"
)

// CertificateRulesOptions say where the rules for client certificates are.
type CertificateRulesOptions struct {
	FileOptions

	// Authorities gives those whose certificates count at present, such as
	// Authorities.Pool. nil: those of the handshake do, as long as a connection stands.
	Authorities func() *x509.CertPool
}

// CertificateRules say what callers with a client certificate may do. The file holds
// JSON:
//
//	{"rules": [
//	  {"uri": "spiffe://example.org/ns/prod/sa/web", "permissions": ["users.read"]},
//	  {"uri": "spiffe://example.org/ns/batch/sa/*", "permissions": ["users.write"]},
//	  {"dns": "*.clients.example.org", "permissions": ["status.read", "status.write"]}
//	]}
//
// A pattern is compared with the whole name. A segment of a URI's path, or a label of
// a DNS name, that is * stands for any one segment or label, never for several and
// never for a part of one. All rules that match a name add up. A name that nobody
// gave, or a permission that there is not, is an error, so that a slip of the pen cannot
// pass for a rule.
//
// The file is read again when it changes. It is safe for use by many goroutines.
type CertificateRules struct {
	*watched[ruleSet]

	authorities func() *x509.CertPool
	seen        seen[x509.CertPool, verdict]
}

// LoadCertificateRules reads the rules. Its error says what is wrong with them.
func LoadCertificateRules(ctx context.Context, opts CertificateRulesOptions) (*CertificateRules, error) {
	w, err := watch(ctx, opts.FileOptions, parseRules)
	if err != nil {
		return nil, fmt.Errorf("rules for certificates: %w", err)
	}
	return &CertificateRules{watched: w, authorities: opts.Authorities}, nil
}

// rule is what those may do whose name matches. pattern.dns says of which kind it is.
type rule struct {
	pattern     certificateName
	permissions Permissions
}

// ruleSet does not change.
type ruleSet []rule

// parseRules reads the file with a decoder that refuses a name that comes twice, and
// knows no case but one: what one reader passes over must not be what another goes by.
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
	into := map[string]any{"uri": &uri, "dns": &dns, "permissions": &permissions}
	for name, raw := range members {
		if into[name] == nil {
			return rule{}, fmt.Errorf("there is no member %q", name)
		}
		if err := json.Unmarshal(raw, into[name]); err != nil {
			return rule{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	pattern, err := parsePattern(uri, dns)
	if err != nil {
		return rule{}, err
	}
	for _, p := range permissions {
		if p.bit() == 0 {
			return rule{}, fmt.Errorf("there is no permission %q", string(p))
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
		return pattern, errors.New("the pattern is no name that a certificate could have here")
	}
	for i, part := range pattern.parts {
		fixed := !pattern.dns && i < 3 // scheme and host of a URI
		if strings.Contains(part, "*") && (part != "*" || fixed) {
			return pattern, errors.New("* must be a whole segment of the path or a whole label")
		}
	}
	return pattern, nil
}

// match adds up what the rules give to a name, and reports whether any is about it.
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
