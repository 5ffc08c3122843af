package server

import (
	"errors"
	"fmt"
	"reflect"

	"github.com/alecthomas/kong"

	"github.com/yourorg/userservice/service/auth"
)

// CallerConfig is the configuration of authentication, TLS and reflection.
type CallerConfig struct {
	JWTJWKS             string `name:"jwt-jwks" type:"nonempty" placeholder:"FILE|URL" help:"JWK set (file or https URL) that verifies bearer tokens. Requires --jwt-issuer and --jwt-audience."`
	JWTIssuer           string `name:"jwt-issuer" type:"nonempty" placeholder:"TEXT" help:"Required issuer (iss) of tokens."`
	JWTAudience         string `name:"jwt-audience" type:"nonempty" placeholder:"TEXT" help:"Required audience (aud) of tokens."`
	JWTPermissionsClaim string `name:"jwt-permissions-claim" type:"nonempty" placeholder:"NAME" help:"Token claim with the permissions (default: permissions, else scope)."`

	TLSCert        string `name:"tls-cert" type:"nonempty" placeholder:"FILE" help:"Certificate chain (PEM) to serve TLS with, reloaded on change. Requires --tls-key."`
	TLSKey         string `name:"tls-key" type:"nonempty" placeholder:"FILE" help:"Private key (PEM) of --tls-cert."`
	TLSClientCA    string `name:"tls-client-ca" type:"nonempty" placeholder:"FILE" help:"CA bundle (PEM) for client certificates; optional, verified when presented."`
	TLSClientRules string `name:"tls-client-rules" type:"nonempty" placeholder:"FILE" help:"Permissions of client certificates (JSON). Requires --tls-client-ca."`

	InsecureNoAuth bool   `help:"Allow a non-loopback --listen address without authentication."`
	Reflection     string `default:"" enum:",off,callers,open" placeholder:"off|callers|open" help:"Access to gRPC reflection: off, callers (authenticated) or open; off also disables /openapi.yaml (default: callers with authentication, open on loopback, else off)."`
}

// authenticates reports whether authentication is enabled.
func (c *CallerConfig) authenticates() bool { return c.JWTJWKS != "" || c.TLSClientRules != "" }

func (c *CallerConfig) validate() error {
	return errors.Join(
		requires("jwt-issuer", c.JWTIssuer, "jwt-jwks", c.JWTJWKS),
		requires("jwt-audience", c.JWTAudience, "jwt-jwks", c.JWTJWKS),
		requires("jwt-permissions-claim", c.JWTPermissionsClaim, "jwt-jwks", c.JWTJWKS),
		requires("jwt-jwks", c.JWTJWKS, "jwt-issuer", c.JWTIssuer),
		requires("jwt-jwks", c.JWTJWKS, "jwt-audience", c.JWTAudience),
		requires("tls-cert", c.TLSCert, "tls-key", c.TLSKey),
		requires("tls-key", c.TLSKey, "tls-cert", c.TLSCert),
		requires("tls-client-ca", c.TLSClientCA, "tls-cert", c.TLSCert),
		requires("tls-client-rules", c.TLSClientRules, "tls-client-ca", c.TLSClientCA),
		c.validateClientCA(),
		c.validateNoAuth(),
		c.validateReflection(),
	)
}

// requires returns an error if the flag is set without the other one.
func requires(flag, value, other, otherValue string) error {
	if value == "" || otherValue != "" {
		return nil
	}
	return fmt.Errorf("--%s requires --%s", flag, other)
}

// validateClientCA rejects --tls-client-ca alone: client certificates are optional, so it would not
// authenticate callers.
func (c *CallerConfig) validateClientCA() error {
	if c.TLSClientCA == "" || c.authenticates() {
		return nil
	}
	return errors.New("--tls-client-ca does not authenticate callers: requires --tls-client-rules or --jwt-jwks")
}

func (c *CallerConfig) validateNoAuth() error {
	if c.InsecureNoAuth && c.authenticates() {
		return errors.New("--insecure-no-auth conflicts with --jwt-jwks and --tls-client-rules")
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

// reflection returns the access to reflection. "callers" without authentication means off, unless the
// address is loopback.
func (c *Config) reflection() auth.Reflection {
	switch {
	case c.Reflection == "off":
		return auth.ReflectionOff
	case c.Reflection == "open":
		return auth.ReflectionOpen
	case c.authenticates():
		return auth.ReflectionCallers
	case !loopback(c.Listen):
		return auth.ReflectionOff
	case c.Reflection == "callers":
		return auth.ReflectionCallers
	}
	return auth.ReflectionOpen
}

// NonEmptyType is the kong type of flags that must not be empty.
const NonEmptyType = "nonempty"

// Flags returns the kong mapper of NonEmptyType. It rejects an empty value, because an unset
// shell variable must not disable authentication or TLS.
func Flags() kong.Option {
	return kong.NamedMapper(NonEmptyType, kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
		if text == "" {
			return errors.New("must not be empty; omit the flag instead")
		}
		target.SetString(text)
		return nil
	}))
}
