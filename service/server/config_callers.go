package server

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/service/auth"
)

// CallerConfig says who may call and how that is known.
type CallerConfig struct {
	JWTJWKS             string `name:"jwt-jwks" type:"given" placeholder:"FILE|URL" help:"Take bearer tokens that are signed with a key of this JWK set: a file, or an https URL. Needs --jwt-issuer and --jwt-audience."`
	JWTIssuer           string `name:"jwt-issuer" type:"given" placeholder:"TEXT" help:"The one issuer (iss) whose tokens are taken."`
	JWTAudience         string `name:"jwt-audience" type:"given" placeholder:"TEXT" help:"The audience (aud) that a token must name."`
	JWTPermissionsClaim string `name:"jwt-permissions-claim" type:"given" placeholder:"NAME" help:"Claim with the permissions of a token's caller. Default: permissions, or where there is none scope."`

	TLSCert        string `name:"tls-cert" type:"given" placeholder:"FILE" help:"Serve TLS with this certificate chain (PEM). It is read again when it changes. Needs --tls-key."`
	TLSKey         string `name:"tls-key" type:"given" placeholder:"FILE" help:"The key of the certificate (PEM)."`
	TLSClientCA    string `name:"tls-client-ca" type:"given" placeholder:"FILE" help:"Ask callers for a certificate of these authorities (PEM). None need be shown; one that is must be good."`
	TLSClientRules string `name:"tls-client-rules" type:"given" placeholder:"FILE" help:"What callers may do by their certificate (JSON). Needs --tls-client-ca."`

	InsecureNoAuth bool   `help:"Serve without any authentication on an address that is not loopback."`
	Reflection     string `default:"" enum:",off,callers,open" placeholder:"off|callers|open" help:"Who may ask which RPCs there are: nobody, callers who are recognized, or everybody. /openapi.yaml, which says the same, is there for everybody unless this is off. Default: open on a loopback address without authentication, callers with authentication, off otherwise."`
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
		c.validateOpen(),
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

// validateOpen refuses two settings of which one must be a mistake.
func (c *CallerConfig) validateOpen() error {
	if c.InsecureNoAuth && c.identifies() {
		return errors.New("--insecure-no-auth serves without authentication, and --jwt-jwks or --tls-client-rules asks for it: leave one of them out")
	}
	return nil
}

func (c *CallerConfig) validateReflection() error {
	switch c.Reflection {
	case "", "off", "callers", "open":
		return nil
	}
	return fmt.Errorf("--reflection=%s: expected off, callers or open", c.Reflection)
}

// reflection says who may ask which RPCs there are. Where nobody is recognized there are
// no callers; a loopback address has its own.
func (c *Config) reflection() auth.Reflection {
	switch {
	case c.Reflection == "off":
		return auth.ReflectionOff
	case c.Reflection == "open":
		return auth.ReflectionOpen
	case c.identifies():
		return auth.ReflectionCallers
	case !loopback(c.Listen):
		return auth.ReflectionOff
	case c.Reflection == "callers":
		return auth.ReflectionCallers
	}
	return auth.ReflectionOpen
}

// Flags teaches a parser the types of the configuration's flags. One of type "given" is
// not empty: a variable of the shell that is not set must not turn off what it was to set.
func Flags() kong.Option {
	return kong.NamedMapper("given", kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
		if text == "" {
			return errors.New("it is given and empty; leave it out if it is not meant")
		}
		target.SetString(text)
		return nil
	}))
}
