package server

import (
	"fmt"
	"io"
	"net/http"
)

// clientCommands are the commands and addresses with which clients connect to the server.
type clientCommands struct {
	url           string
	curl, grpcurl string // the commands with flags
	target        string // the address argument of grpcurl
}

// tcpCommands returns the commands for a TCP address or host.
func tcpCommands(host string, tls bool) clientCommands {
	if tls {
		return clientCommands{url: "https://" + host, curl: "curl", grpcurl: "grpcurl", target: host}
	}
	return clientCommands{url: "http://" + host, curl: "curl", grpcurl: "grpcurl -plaintext", target: host}
}

// socketCommands returns the commands for a Unix socket.
func socketCommands(path string, tls bool) clientCommands {
	at := tcpCommands("localhost", tls)
	at.curl += " --unix-socket " + path
	at.grpcurl, at.target = at.grpcurl+" -unix", path
	return at
}

// serveHints serves example commands at /, for browsers and curl.
func serveHints(c *callers) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		writeHints(w, tcpCommands(r.Host, r.TLS != nil), c)
	}
}

// writeHints writes example commands. Write errors are ignored.
func writeHints(w io.Writer, at clientCommands, c *callers) {
	_, _ = fmt.Fprintf(w, hints, at.curl, at.url)
	if c.documented {
		_, _ = fmt.Fprintf(w, reflectionHints, at.curl, at.url, at.grpcurl, at.target)
	}
	if c.authenticator != nil {
		_, _ = fmt.Fprint(w, authHints)
	}
}

const authHints = `
Authentication is required: add -H "Authorization: Bearer $TOKEN" or a client certificate to
each command. userd token creates a development token.
`

const hints = `This is user.v1.UserService: a user directory with a live activity feed.
gRPC, gRPC-Web, Connect and REST share this one port.

Create a user and list all users:
    %[1]s %[2]s/api/v1/users -H 'Content-Type: application/json' \
      -d '{"username": "ada", "email": "ada@example.com"}'
    %[1]s %[2]s/api/v1/users

Call an RPC with JSON over HTTP:
    %[1]s %[2]s/user.v1.UserService/ListUsers -H 'Content-Type: application/json' -d '{}'

Stream all activities:
    %[1]s -N -H 'Accept: text/event-stream' %[2]s/api/v1/users/0/activities
`

const reflectionHints = `
Describe the API:
    %[3]s %[4]s describe user.v1.UserService
    %[1]s %[2]s/openapi.yaml
`
