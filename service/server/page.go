package server

import (
	"fmt"
	"io"
	"net/http"
)

// servePage tells people who come with a browser, or a bare curl, what there is.
func servePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	writeHints(w, r.Host)
}

// writeHints writes what to try. An error of the writer is its reader's.
func writeHints(w io.Writer, host string) {
	_, _ = fmt.Fprintf(w, hints, host)
}

const hints = `This is user.v1.UserService: a user directory with a live activity feed.
gRPC, gRPC-Web, Connect and REST share this one port.

Create a user, and list:
    curl http://%[1]s/api/v1/users -H 'Content-Type: application/json' \
      -d '{"username": "ada", "email": "ada@example.com"}'
    curl http://%[1]s/api/v1/users

The same by RPC, as JSON over plain HTTP:
    curl http://%[1]s/user.v1.UserService/ListUsers -H 'Content-Type: application/json' -d '{}'

Follow everything that happens:
    curl -N -H 'Accept: text/event-stream' http://%[1]s/api/v1/users/0/activities

See what there is:
    grpcurl -plaintext %[1]s describe user.v1.UserService
    curl http://%[1]s/openapi.yaml
`
