package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/yourorg/userservice/service/auth"
)

// tokenCommand is userd token.
type tokenCommand struct {
	Subject    string        `default:"developer" help:"Who the token says is calling."`
	Permission []string      `placeholder:"NAME" sep:"none" help:"What the caller may do, such as users.read; several with commas between. May be repeated. Default: everything."`
	TTL        time.Duration `name:"ttl" default:"24h" help:"How long the token counts."`
	Dir        string        `default:"." type:"path" placeholder:"FOLDER" help:"Where the key is kept and the key set is written to."`
}

// Run makes the token and prints what to do with it.
func (c *tokenCommand) Run(to console) error {
	var permissions []string
	for _, names := range c.Permission {
		// An empty name is a slip, such as a variable that is not set, and is refused as a
		// permission that there is not.
		permissions = append(permissions, strings.Split(names, ",")...)
	}
	if len(permissions) == 0 {
		for _, p := range auth.AllPermissions().List() {
			permissions = append(permissions, string(p))
		}
	}
	token, keys, err := auth.NewDevelopmentToken(c.Dir, c.Subject, permissions, c.TTL)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(to.out, twoCommands, quote(keys), auth.DevelopmentIssuer, auth.DevelopmentAudience,
		token, c.Subject, c.TTL, strings.Join(permissions, ", "), calledAs(to.name))
	return err
}

const twoCommands = `# A server that takes the token; its key is for development only:
%[8]s --jwt-jwks %[1]s --jwt-issuer %[2]s --jwt-audience %[3]s

# A call by %[5]s, for the next %[6]v (%[7]s):
curl http://127.0.0.1:8080/api/v1/users -H 'Authorization: Bearer %[4]s'
`

// calledAs is how the program can be called once more. What go run builds is gone when
// it has ended.
func calledAs(name string) string {
	if strings.Contains(filepath.ToSlash(name), "/go-build") {
		return "go run ./cmd/userd"
	}
	return quote(name)
}

// quote makes one word of a path for a shell.
func quote(path string) string {
	plain := !strings.ContainsFunc(path, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-", r)
	})
	if plain {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
