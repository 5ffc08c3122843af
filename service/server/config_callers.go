package server

import (
	"errors"
	"fmt"

	"github.com/yourorg/userservice/service/auth"
)

// CallerConfig says who may call and how that is known.
type CallerConfig struct {
	JWTJWKS             string `name:"jwt-jwks" placeholder:"FILE|URL" help:"Take bearer tokens that are signed with a key of this JWK set: a file, or an https URL. Needs --jwt-issuer and --jwt-audience."`
	JWTIssuer           string `name:"jwt-issuer" placeholder:"TEXT" help:"The one issuer (iss) whose tokens are taken."`
	JWTAudience         string `name:"jwt-audience" placeholder:"TEXT" help:"The audience (aud) that a token must name."`
	JWTPermissionsClaim string `name:"jwt-permissions-claim" placeholder:"NAME" help:"Claim with the permissions of a token's caller. Default: permissions, or where there is none scope."`

	TLSCert        string `name:"tls-cert" placeholder:"FILE" help:"Serve TLS with this certificate chain (PEM). It is read again when it changes. Needs --tls-key."`
	TLSKey         string `name:"tls-key" placeholder:"FILE" help:"The key of the certificate (PEM)."`
	TLSClientCA    string `name:"tls-client-ca" placeholder:"FILE" help:"Ask callers for a certificate of these authorities (PEM). None need be shown; one that is must be good."`
	TLSClientRules string `name:"tls-client-rules" placeholder:"FILE" help:"What callers may do by their certificate (JSON). Needs --tls-client-ca."`

	InsecureNoAuth bool   `help:"Serve without any authentication on an address that is not loopback."`
	Reflection     string `default:"" enum:",off,callers,open" placeholder:"off|callers|open" help:"Who may ask which RPCs there are: nobody, callers who are recognized, or everybody. Default: open on a loopback address without authentication, callers otherwise."`
}

// identifies reports whether anything says who is calling.
func (c *CallerConfig) identifies() bool { return c.JWTJWKS != "" || c.TLSClientRules != "" }

func (c *CallerConfig) validate() error {
	return errors.Join(
		together("jwt-issuer", c.JWTIssuer, "jwt-jwks", c.JWTJWKS, "names the keys that tokens are signed with"),
		together("jwt-audience", c.JWTAudience, "jwt-jwks", c.JWTJWKS, "names the keys that tokens are signed with"),
		together("jwt-permissions-claim", c.JWTPermissionsClaim, "jwt-jwks", c.JWTJWKS, "names the keys that tokens are signed with"),
		together("jwt-jwks", c.JWTJWKS, "jwt-issuer", c.JWTIssuer, "says whose tokens are taken"),
		together("jwt-jwks", c.JWTJWKS, "jwt-audience", c.JWTAudience, "keeps out tokens that were meant for another service"),
		together("tls-cert", c.TLSCert, "tls-key", c.TLSKey, "names the key of the certificate"),
		together("tls-key", c.TLSKey, "tls-cert", c.TLSCert, "names the certificate of the key"),
		together("tls-client-ca", c.TLSClientCA, "tls-cert", c.TLSCert, "is what TLS is served with"),
		together("tls-client-rules", c.TLSClientRules, "tls-client-ca", c.TLSClientCA, "names the authorities of these certificates"),
		c.validateAuthorities(),
		c.validateReflection(),
	)
}

// together says what is missing beside a flag that is given.
func together(flag, value, other, otherValue, why string) error {
	if value == "" || otherValue != "" {
		return nil
	}
	return fmt.Errorf("--%s needs --%s, which %s", flag, other, why)
}

// validateAuthorities refuses what looks like a lock and is none: callers need not show
// a certificate, so that authorities alone would keep nobody out.
func (c *CallerConfig) validateAuthorities() error {
	if c.TLSClientCA == "" || c.identifies() {
		return nil
	}
	return errors.New("--tls-client-ca alone keeps nobody out: " +
		"say with --tls-client-rules what callers may do by their certificates")
}

func (c *CallerConfig) validateReflection() error {
	switch c.Reflection {
	case "", "off", "callers", "open":
		return nil
	}
	return fmt.Errorf("--reflection=%s: expected off, callers or open", c.Reflection)
}

// reflection says who may ask which RPCs there are.
func (c *Config) reflection() auth.Reflection {
	switch {
	case c.Reflection == "off":
		return auth.ReflectionOff
	case c.Reflection == "open", c.Reflection == "" && !c.identifies() && loopback(c.Listen):
		return auth.ReflectionOpen
	}
	return auth.ReflectionCallers
}
