package server

import (
	"fmt"
	"io"
	"net/http"
)

// reach is how a client reaches the server, in the words of the tools that the hints name.
type reach struct {
	url           string
	curl, grpcurl string // the command with its flags
	target        string // the address for grpcurl
}

// reachBy is for an address of TCP, or the host that a client has used.
func reachBy(host string, tls bool) reach {
	if tls {
		return reach{url: "https://" + host, curl: "curl", grpcurl: "grpcurl", target: host}
	}
	return reach{url: "http://" + host, curl: "curl", grpcurl: "grpcurl -plaintext", target: host}
}

// reachSocket is for the path of a Unix socket.
func reachSocket(path string, tls bool) reach {
	at := reachBy("localhost", tls)
	at.curl += " --unix-socket " + path
	at.grpcurl, at.target = at.grpcurl+" -unix", path
	return at
}

// servePage tells people who come with a browser, or a bare curl, what there is.
func servePage(c *callers) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		writeHints(w, reachBy(r.Host, r.TLS != nil), c)
	}
}

// writeHints writes what to try. An error of the writer is its reader's.
func writeHints(w io.Writer, at reach, c *callers) {
	_, _ = fmt.Fprintf(w, hints, at.curl, at.url)
	if c.documented {
		_, _ = fmt.Fprintf(w, described, at.curl, at.url, at.grpcurl, at.target)
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
    %[1]s %[2]s/api/v1/users -H 'Content-Type: application/json' \
      -d '{"username": "ada", "email": "ada@example.com"}'
    %[1]s %[2]s/api/v1/users

The same by RPC, as JSON over plain HTTP:
    %[1]s %[2]s/user.v1.UserService/ListUsers -H 'Content-Type: application/json' -d '{}'

Follow everything that happens:
    %[1]s -N -H 'Accept: text/event-stream' %[2]s/api/v1/users/0/activities
`

const described = `
See what there is:
    %[3]s %[4]s describe user.v1.UserService
    %[1]s %[2]s/openapi.yaml
`
