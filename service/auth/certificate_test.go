package auth_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

const someRules = `{"rules": [
	{"uri": "spiffe://example.org/ns/prod/sa/web", "permissions": ["users.read"]},
	{"uri": "spiffe://example.org/ns/*/sa/web", "permissions": ["status.read"]},
	{"uri": "urn:example:client:7", "permissions": ["users.delete"]},
	{"dns": "*.clients.example.org", "permissions": ["users.write"]},
	{"dns": "idle.example.org", "permissions": []}
]}`

func loadRules(t *testing.T) *auth.CertificateRules {
	t.Helper()
	rules, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{FileOptions: auth.FileOptions{
		Path: writeFile(t, "rules.json", []byte(someRules)), Logger: new(logged).logger(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// leaf returns a certificate with the names; a name with a colon is a URI.
func leaf(now time.Time, names ...string) *x509.Certificate {
	c := &x509.Certificate{NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour)}
	c.Subject.CommonName = "web.clients.example.org"
	c.EmailAddresses = []string{"web@clients.example.org"}
	for _, name := range names {
		if strings.Contains(name, ":") {
			c.URIs = append(c.URIs, must(url.Parse(name)))
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	return c
}

// over returns a request on a connection with the client certificate.
func over(t *testing.T, c *x509.Certificate, verified bool, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
	for _, h := range headers {
		r.Header.Add("Authorization", h)
	}
	if c != nil {
		r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
		if verified {
			r.TLS.VerifiedChains = [][]*x509.Certificate{{c}}
		}
	}
	return r
}

func TestCertificates(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	a, err := auth.NewAuthenticator(auth.Options{Certificates: loadRules(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	old, early := leaf(now, "web.clients.example.org"), leaf(now, "web.clients.example.org")
	old.NotAfter, early.NotBefore = now, now.Add(time.Second)
	for _, row := range []struct {
		name    string
		cert    *x509.Certificate
		subject string
		may     []auth.Permission
		cause   auth.Cause
	}{
		{name: "rules add up", cert: leaf(now, "spiffe://example.org/ns/prod/sa/web"),
			subject: "cert:spiffe://example.org/ns/prod/sa/web", may: []auth.Permission{auth.UsersRead, auth.StatusRead}},
		{name: "a star for a segment", cert: leaf(now, "spiffe://example.org/ns/test/sa/web"),
			subject: "cert:spiffe://example.org/ns/test/sa/web", may: []auth.Permission{auth.StatusRead}},
		{name: "case of scheme and host", cert: leaf(now, "SPIFFE://Example.ORG/ns/test/sa/web"),
			subject: "cert:spiffe://example.org/ns/test/sa/web", may: []auth.Permission{auth.StatusRead}},
		{name: "case of the path counts", cert: leaf(now, "spiffe://example.org/ns/test/sa/WEB"),
			subject: "cert:spiffe://example.org/ns/test/sa/WEB"},
		{name: "a star is one segment", cert: leaf(now, "spiffe://example.org/ns/a/b/sa/web"),
			subject: "cert:spiffe://example.org/ns/a/b/sa/web"},
		{name: "another trust domain", cert: leaf(now, "spiffe://example.org.evil/ns/prod/sa/web"),
			subject: "cert:spiffe://example.org.evil/ns/prod/sa/web"},
		{name: "a URI that is no path", cert: leaf(now, "urn:example:client:7"),
			subject: "cert:urn:example:client:7", may: []auth.Permission{auth.UsersDelete}},
		{name: "a DNS name", cert: leaf(now, "web.Clients.example.org."),
			subject: "cert:web.clients.example.org", may: []auth.Permission{auth.UsersWrite}},
		{name: "a star is one label", cert: leaf(now, "a.b.clients.example.org"), subject: "cert:a.b.clients.example.org"},
		{name: "a star is a label", cert: leaf(now, "clients.example.org"), subject: "cert:clients.example.org"},
		{name: "a rule that gives nothing", cert: leaf(now, "idle.example.org", "web.clients.example.org"), subject: "cert:idle.example.org"},
		{name: "URI before DNS", cert: leaf(now, "web.clients.example.org", "spiffe://example.org/ns/test/sa/web"),
			subject: "cert:spiffe://example.org/ns/test/sa/web", may: []auth.Permission{auth.StatusRead}},
		{name: "the first that a rule matches", cert: leaf(now, "spiffe://example.org/other", "web.clients.example.org"),
			subject: "cert:web.clients.example.org", may: []auth.Permission{auth.UsersWrite}},
		{name: "names do not add up", cert: leaf(now, "spiffe://example.org/ns/test/sa/web", "urn:example:client:7"),
			subject: "cert:spiffe://example.org/ns/test/sa/web", may: []auth.Permission{auth.StatusRead}},
		{name: "dots in a path", cert: leaf(now, "spiffe://example.org/ns/x/../prod/sa/web"), cause: auth.CauseNoName},
		{name: "an escape in a path", cert: leaf(now, "spiffe://example.org/ns/pr%6Fd/sa/web"), cause: auth.CauseNoName},
		{name: "a query", cert: leaf(now, "spiffe://example.org/ns/prod/sa/web?x"), cause: auth.CauseNoName},
		{name: "a user", cert: leaf(now, "spiffe://ann@example.org/ns/prod/sa/web"), cause: auth.CauseNoName},
		{name: "a name for many", cert: leaf(now, "*.clients.example.org"), cause: auth.CauseNoName},
		{name: "the common name alone", cert: leaf(now), cause: auth.CauseNoName},
		{name: "a name that leaves no room", cert: leaf(now, "urn:"+strings.Repeat("x", 247)), cause: auth.CauseNoName},
		{name: "the longest name", cert: leaf(now, "urn:"+strings.Repeat("x", 246)), subject: "cert:urn:" + strings.Repeat("x", 246)},
		{name: "expired since the handshake", cert: old, cause: auth.CauseExpired},
		{name: "not yet valid", cert: early, cause: auth.CauseNotYetValid},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, err := a.Authenticate(over(t, row.cert, true))
			if got := causeOf(err); got != row.cause {
				t.Fatalf("cause = %q, want %q", got, row.cause)
			}
			if err != nil {
				return
			}
			if c.Subject != row.subject || c.Kind != auth.Certificate || c.Permissions != auth.PermissionsOf(row.may...) ||
				!c.Expires.Equal(row.cert.NotAfter) {
				t.Errorf("Authenticate() = %+v", c)
			}
		})
	}
}

func TestCertificateExpiresWithItsChain(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	a, err := auth.NewAuthenticator(auth.Options{Certificates: loadRules(t), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(now, "web.clients.example.org")
	soon, sooner := leaf(now), leaf(now)
	soon.NotAfter, sooner.NotAfter = now.Add(2*time.Minute), now.Add(time.Minute)
	r := over(t, c, true)
	r.TLS.VerifiedChains = [][]*x509.Certificate{{c, sooner}, {c, soon}}
	caller, err := a.Authenticate(r)
	if err != nil || !caller.Expires.Equal(soon.NotAfter) {
		t.Errorf("Authenticate() = %+v, %v, want the expiry of the longest chain", caller, err)
	}
}

// A token takes precedence over a client certificate.
func TestPrecedence(t *testing.T) {
	now := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	tokens := newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), clock)
	rules := loadRules(t)
	cert := leaf(now, "web.clients.example.org")
	good := "Bearer " + sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now))
	late := "Bearer " + sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(now).with("exp", 1))

	both := auth.Options{Tokens: tokens, Certificates: rules, Now: clock}
	for _, row := range []struct {
		name    string
		opts    auth.Options
		request *http.Request
		subject string
		cause   auth.Cause
	}{
		{"neither", both, over(t, nil, false), "", auth.CauseMissing},
		{"token", both, over(t, nil, false, good), "ann", ""},
		{"scheme in other case", both, over(t, nil, false, strings.Replace(good, "Bearer", "bEARER", 1)), "ann", ""},
		{"certificate", both, over(t, cert, true), "cert:web.clients.example.org", ""},
		{"both", both, over(t, cert, true, good), "ann", ""},
		{"bad token, good certificate", both, over(t, cert, true, "Bearer nonsense"), "", auth.CauseMalformed},
		{"expired token, good certificate", both, over(t, cert, true, late), "", auth.CauseExpired},
		{"no token in the header, good certificate", both, over(t, cert, true, "Bearer"), "", auth.CauseHeader},
		{"empty header, good certificate", both, over(t, cert, true, ""), "", auth.CauseHeader},
		{"another scheme, good certificate", both, over(t, cert, true, "Basic YW5uOmFubg=="), "", auth.CauseHeader},
		{"two tokens", both, over(t, nil, false, good, good), "", auth.CauseHeader},
		{"two tokens in one header", both, over(t, nil, false, good+", "+good), "", auth.CauseHeader},
		{"good token, unverified certificate", both, over(t, cert, false, good), "ann", ""},
		{"unverified certificate", both, over(t, cert, false), "", auth.CauseUnverified},
		{"token where only certificates are", auth.Options{Certificates: rules, Now: clock}, over(t, cert, true, good), "", auth.CauseTokensDisabled},
		{"certificate where only tokens are", auth.Options{Tokens: tokens, Now: clock}, over(t, cert, true), "", auth.CauseMissing},
	} {
		t.Run(row.name, func(t *testing.T) {
			a, err := auth.NewAuthenticator(row.opts)
			if err != nil {
				t.Fatal(err)
			}
			c, err := a.Authenticate(row.request)
			if got := causeOf(err); got != row.cause || c.Subject != row.subject {
				t.Errorf("Authenticate() = %q, cause %q, want %q, cause %q", c.Subject, got, row.subject, row.cause)
			}
		})
	}
}

func TestAuthenticatorNeedsTokensOrCertificates(t *testing.T) {
	if _, err := auth.NewAuthenticator(auth.Options{}); err == nil {
		t.Error("NewAuthenticator(Options{}) = nil error, want error")
	}
}

func TestBadRules(t *testing.T) {
	for name, body := range map[string]string{
		"empty":                  ``,
		"no rules":               `{}`,
		"not JSON":               `rules: []`,
		"more after them":        `{"rules": []} {}`,
		"unknown member":         `{"rules": [{"uri": "a://b/c", "permision": []}]}`,
		"unknown permission":     `{"rules": [{"uri": "a://b/c", "permissions": ["users.raed"]}]}`,
		"star for permissions":   `{"rules": [{"uri": "a://b/c", "permissions": ["*"]}]}`,
		"no pattern":             `{"rules": [{"permissions": []}]}`,
		"two patterns":           `{"rules": [{"uri": "a://b/c", "dns": "b"}]}`,
		"star within a segment":  `{"rules": [{"uri": "a://b/c*"}]}`,
		"star for a host":        `{"rules": [{"uri": "a://*/c"}]}`,
		"star for a scheme":      `{"rules": [{"uri": "*://b/c"}]}`,
		"star within a label":    `{"rules": [{"dns": "a*.example.org"}]}`,
		"no URI":                 `{"rules": [{"uri": "example.org/c"}]}`,
		"URI with a query":       `{"rules": [{"uri": "a://b/c?d"}]}`,
		"URI that ends in slash": `{"rules": [{"uri": "a://b/c/"}]}`,
		"member twice":           `{"rules": [{"uri": "a://b/c", "permissions": [], "permissions": ["users.read"]}]}`,
		"rules twice":            `{"rules": [], "rules": []}`,
		"member in other case":   `{"rules": [{"URI": "a://b/c", "permissions": []}]}`,
		"empty label":            `{"rules": [{"dns": "a..b"}]}`,
	} {
		_, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{FileOptions: auth.FileOptions{
			Path: writeFile(t, "rules.json", []byte(body)), Logger: new(logged).logger(),
		}})
		if err == nil || !strings.Contains(err.Error(), "rules.json") {
			t.Errorf("LoadCertificateRules(%s) error = %v, want one that names the file", name, err)
		}
	}
	if _, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{FileOptions: auth.FileOptions{Path: "none.json"}}); err == nil {
		t.Error("LoadCertificateRules of a missing file: got nil error")
	}
}

// A malformed file keeps the previous rules.
func TestRulesReload(t *testing.T) {
	path := writeFile(t, "rules.json", []byte(someRules))
	synctest.Test(t, func(t *testing.T) {
		log := new(logged)
		rules, err := auth.LoadCertificateRules(auth.CertificateRulesOptions{FileOptions: auth.FileOptions{Path: path, Logger: log.logger()}})
		if err != nil {
			t.Fatal(err)
		}
		a, err := auth.NewAuthenticator(auth.Options{Certificates: rules})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { a.Run(ctx) })
		defer running.Wait()
		defer cancel()
		may := func() auth.Permissions {
			c, err := a.Authenticate(over(t, leaf(time.Now(), "web.clients.example.org"), true))
			if err != nil {
				t.Fatal(err)
			}
			return c.Permissions
		}
		for _, step := range []struct {
			body string
			want auth.Permissions
		}{
			{someRules, auth.PermissionsOf(auth.UsersWrite)},
			{`{"rules": [`, auth.PermissionsOf(auth.UsersWrite)},
			{`{"rules": [{"dns": "web.clients.example.org", "permissions": ["users.read"]}]}`, auth.PermissionsOf(auth.UsersRead)},
			{`{"rules": []}`, 0},
		} {
			if err := os.WriteFile(path, []byte(step.body), 0o600); err != nil {
				t.Fatal(err)
			}
			time.Sleep(6 * time.Second)
			if got := may(); got != step.want {
				t.Errorf("permissions after %s = %v", step.body, got.List())
			}
		}
		if !strings.Contains(log.String(), "previous content in use") {
			t.Error("failed reload is not logged")
		}
	})
}
