package main

import (
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/auth/devtoken"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
)

// secured is a server with TLS that requires a token or a client certificate.
type secured struct {
	*servertest.Server

	dir, ca string
	trusted *servertest.Authority
	token   string // may read users
}

func startSecured(t *testing.T) secured {
	t.Helper()
	s := secured{dir: t.TempDir(), trusted: servertest.NewAuthority(t)}
	s.ca = servertest.WriteFile(t, s.dir, "ca.pem", s.trusted.PEM)
	rules := servertest.WriteFile(t, s.dir, "rules.json", []byte(`{"rules": [{"uri": "spiffe://example.org/*", "permissions": ["users.read"]}]}`))
	cert, key := s.trusted.Server(t).Write(t, t.TempDir())
	token, keys, err := devtoken.New(t.TempDir(), "test", []string{"users.read"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	s.token = token
	s.Server = servertest.Start(t, servertest.Config(func(c *server.Config) {
		c.TLSCert, c.TLSKey, c.TLSClientCA, c.TLSClientRules = cert, key, s.ca, rules
		c.JWTJWKS, c.JWTIssuer, c.JWTAudience = keys, devtoken.Issuer, devtoken.Audience
	}))
	return s
}

func TestCredentials(t *testing.T) {
	s := startSecured(t)
	tokenFile := servertest.WriteFile(t, s.dir, "token", []byte(s.token+"\n"))
	cert, key := s.trusted.Client(t, "spiffe://example.org/operator").Write(t, t.TempDir())
	otherCert, otherKey := s.trusted.Client(t, "spiffe://example.com/operator").Write(t, t.TempDir())
	stranger := servertest.NewAuthority(t)
	strangeCA := servertest.WriteFile(t, s.dir, "stranger.pem", stranger.PEM)
	t.Setenv("USERCTL_CONFIG", s.dir+"/config.yaml")
	if r := onContexts(t, "set", "secured", "--server", "https://"+s.Addr(), "--ca", s.ca, "--token-file", tokenFile); r.status != statusOK {
		t.Fatalf("context set: %+v", r)
	}
	t.Setenv("USERCTL_SERVER", "https://"+s.Addr())
	const noToken, noPermission = "hint: pass a token with --token-file or USERCTL_TOKEN", "hint: ask an operator for the permission"
	for _, c := range []struct {
		env, args string
		status    int
		err       string
	}{
		{"", "list", statusUnavailable, "certificate signed by unknown authority"},
		{"", "list --ca " + strangeCA, statusUnavailable, "certificate signed by unknown authority"},
		{"", "list --ca none", statusUsage, "load certificates: open none"},
		{"", "list --ca " + tokenFile, statusUsage, "no certificates in PEM"},
		{"", "list --ca " + s.ca, statusForbidden, noToken},
		{"", "health --ca " + s.ca, statusOK, ""},
		{"", "list --token x --ca " + s.ca, statusForbidden, noToken},
		{"", "list --token " + s.token + " --ca " + s.ca, statusOK, ""},
		{"", "list --token-file none --ca " + s.ca, statusForbidden, noToken},
		{"", "list --token-file " + tokenFile + " --ca " + s.ca, statusOK, ""},
		{"", "list --token-file " + tokenFile + " --token x --ca " + s.ca, statusUsage, "cannot be used together"},
		{"", "create x x@example.org --token-file " + tokenFile + " --ca " + s.ca, statusForbidden, noPermission},
		{"", "list --ca " + s.ca + " --cert " + cert, statusUsage, "needs both files"},
		{"", "list --ca " + s.ca + " --cert " + cert + " --key " + otherKey, statusUsage, "private key does not match"},
		{"", "list --ca " + s.ca + " --cert " + cert + " --key " + key, statusOK, ""},
		{"", "list --ca " + s.ca + " --cert " + otherCert + " --key " + otherKey, statusForbidden, ""},
		{"USERCTL_CA=" + s.ca + " USERCTL_TOKEN=" + s.token, "list", statusOK, ""},
		{"USERCTL_CA=" + s.ca + " USERCTL_CERT=" + cert + " USERCTL_KEY=" + key, "activities --follow --state none/state", statusForbidden, noPermission},
		{"", "list --context secured", statusOK, ""},
		{"", "create x x@example.org --context secured", statusForbidden, noPermission},
	} {
		t.Run(c.env+" "+c.args, func(t *testing.T) {
			for pair := range strings.FieldsSeq(c.env) {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			r := runWithout(t, strings.Fields(c.args)...)
			if r.status != c.status || !strings.Contains(r.err, c.err) || (r.status == statusOK) != (r.err == "") {
				t.Errorf("exit status %d, %q, want %d, %q", r.status, r.err, c.status, c.err)
			}
		})
	}
}
