package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/auth/devtoken"
)

// tokenCommand is userd token.
type tokenCommand struct {
	Subject    string        `default:"developer" help:"Subject (sub) of the token."`
	Permission []string      `placeholder:"NAME" sep:"none" help:"Permissions of the token, comma-separated, such as users.read; repeatable (default: all)."`
	TTL        time.Duration `name:"ttl" default:"24h" help:"Lifetime of the token."`
	Dir        string        `default:"." type:"path" help:"Directory of the private key and the JWK set."`
	Raw        bool          `help:"Print only the token."`
}

// Run creates the token and prints commands that use it.
func (c *tokenCommand) Run(to console) error {
	var permissions []string
	for _, names := range c.Permission {
		// An empty name, as from an unset variable, is rejected as an unknown permission.
		permissions = append(permissions, strings.Split(names, ",")...)
	}
	if len(permissions) == 0 {
		for _, p := range auth.AllPermissions().List() {
			permissions = append(permissions, string(p))
		}
	}
	token, keys, err := devtoken.New(c.Dir, c.Subject, permissions, c.TTL)
	if err != nil {
		return err
	}
	if c.Raw {
		_, err = fmt.Fprintln(to.out, token)
		return err
	}
	_, err = fmt.Fprintf(to.out, usageTemplate, quote(keys), devtoken.Issuer, devtoken.Audience,
		token, c.Subject, c.TTL, strings.Join(permissions, ", "), commandName(to.name))
	return err
}

const usageTemplate = `# Run a server that accepts the token (the key is for development only):
%[8]s --jwt-jwks %[1]s --jwt-issuer %[2]s --jwt-audience %[3]s

# Call it as %[5]s; the token is valid for %[6]v (%[7]s):
curl http://127.0.0.1:8080/api/v1/users -H 'Authorization: Bearer %[4]s'
`

// commandName returns a command that runs the program again. The binary of go run is deleted
// when it exits.
func commandName(name string) string {
	if strings.Contains(filepath.ToSlash(name), "/go-build") {
		return "go run ./cmd/userd"
	}
	return quote(name)
}

// quote quotes a path for a shell.
func quote(path string) string {
	plain := !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-", r)
	})
	if plain {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
