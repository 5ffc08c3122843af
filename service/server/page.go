package server

import (
	"fmt"
	"io"
	"net/http"
)

// servePage tells people who come with a browser, or a bare curl, what there is.
func servePage(c *callers) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		writeHints(w, r.Host, r.TLS != nil, c)
	}
}

// writeHints writes what to try. An error of the writer is its reader's.
func writeHints(w io.Writer, host string, tls bool, c *callers) {
	scheme, plaintext := "http", "-plaintext "
	if tls {
		scheme, plaintext = "https", ""
	}
	_, _ = fmt.Fprintf(w, hints, host, scheme)
	if c.documented {
		_, _ = fmt.Fprintf(w, described, host, scheme, plaintext)
	}
	if c.authenticator != nil {
		_, _ = fmt.Fprint(w, asked)
	}
}

const asked = `
Callers have to say who they are: add -H "Authorization: Bearer $TOKEN" to each command,
or a client certificate. userd token makes a token for trying things out.
`

const hints = `This is user.v1.UserService: a user directory with a live activity feed.
gRPC, gRPC-Web, Connect and REST share this one port.

Create a user, and list:
    curl %[2]s://%[1]s/api/v1/users -H 'Content-Type: application/json' \
      -d '{"username": "ada", "email": "ada@example.com"}'
    curl %[2]s://%[1]s/api/v1/users

The same by RPC, as JSON over plain HTTP:
    curl %[2]s://%[1]s/user.v1.UserService/ListUsers -H 'Content-Type: application/json' -d '{}'

Follow everything that happens:
    curl -N -H 'Accept: text/event-stream' %[2]s://%[1]s/api/v1/users/0/activities
`

const described = `
See what there is:
    grpcurl %[3]s%[1]s describe user.v1.UserService
    curl %[2]s://%[1]s/openapi.yaml
`
