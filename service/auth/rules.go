package auth

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"
)

// CertificateRulesOptions say where the rules for client certificates are.
type CertificateRulesOptions struct {
	// Path of the file. Required. At most 1 MiB.
	Path string
	// Refresh is how often it is looked at. 0: 5 s.
	Refresh time.Duration
	Logger  *slog.Logger // required
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
// The file is read again when it changes. A change that cannot be read leaves the rules
// as they are, and is logged at every look until it is mended. It is safe for use by
// many goroutines.
type CertificateRules struct {
	opts   CertificateRulesOptions
	source source

	mu     sync.Mutex
	set    ruleSet
	digest [sha256.Size]byte
}

// LoadCertificateRules reads the rules. Its error says what is wrong with them.
func LoadCertificateRules(ctx context.Context, opts CertificateRulesOptions) (*CertificateRules, error) {
	orElse(&opts.Refresh, 5*time.Second)
	r := &CertificateRules{opts: opts, source: fileSource(opts.Path)}
	if _, err := r.read(ctx); err != nil {
		return nil, fmt.Errorf("rules for certificates: %w", err)
	}
	return r, nil
}

// Run reads the rules again when they change, until the context ends.
func (r *CertificateRules) Run(ctx context.Context) {
	ticker := time.NewTicker(r.opts.Refresh)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		changed, err := r.read(ctx)
		switch {
		case err != nil:
			r.opts.Logger.LogAttrs(ctx, slog.LevelError, "the rules for certificates could not be read; the old ones stay",
				slog.Any("error", err))
		case changed:
			r.opts.Logger.LogAttrs(ctx, slog.LevelInfo, "the rules for certificates have changed",
				slog.Int("rules", len(r.rules())))
		}
	}
}

func (r *CertificateRules) rules() ruleSet {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.set
}

func (r *CertificateRules) read(ctx context.Context) (changed bool, err error) {
	body, err := r.source(ctx)
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(body)
	r.mu.Lock()
	known := r.set != nil && r.digest == digest
	r.mu.Unlock()
	if known {
		return false, nil
	}
	set, err := parseRules(body)
	if err != nil {
		return false, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.set, r.digest = set, digest
	return true, nil
}

// rule is what those may do whose name matches. pattern.dns says of which kind it is.
type rule struct {
	pattern     certificateName
	permissions Permissions
}

// ruleSet does not change.
type ruleSet []rule

func parseRules(body []byte) (ruleSet, error) {
	var file struct {
		Rules *[]struct {
			URI         string       `json:"uri"`
			DNS         string       `json:"dns"`
			Permissions []Permission `json:"permissions"`
		} `json:"rules"`
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the rules")
	}
	if file.Rules == nil {
		return nil, errors.New(`expected {"rules": [...]}`)
	}
	set := make(ruleSet, 0, len(*file.Rules))
	for i, one := range *file.Rules {
		pattern, err := parsePattern(one.URI, one.DNS)
		if err != nil {
			return nil, fmt.Errorf("rule %d: %w", i, err)
		}
		for _, p := range one.Permissions {
			if p.bit() == 0 {
				return nil, fmt.Errorf("rule %d: there is no permission %q", i, string(p))
			}
		}
		set = append(set, rule{pattern: pattern, permissions: PermissionsOf(one.Permissions...)})
	}
	return set, nil
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
