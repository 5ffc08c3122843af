package server_test

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// tokens are rejected tokens.
type tokens struct{ reader, expired, foreign string }

func (k tokens) rows() map[string]failing {
	refused := func(authorization string, reason user.Reason, message string) failing {
		f := failing{
			reason: reason, status: 401, rpc: listUsers, rest: listedByREST,
			want: &errorContent{Code: connect.CodeUnauthenticated, Reason: string(reason), Message: message},
		}
		if authorization != "" {
			f.header = http.Header{"Authorization": {authorization}}
		}
		return f
	}
	missing := func(p auth.Permission, rpc func(context.Context, userv1connect.UserServiceClient) error, rest request) failing {
		return failing{
			reason: user.PermissionMissing, status: 403, rpc: rpc, rest: rest,
			header: http.Header{"Authorization": {"Bearer " + k.reader}},
			want: &errorContent{
				Code: connect.CodePermissionDenied, Reason: "PERMISSION_MISSING", Message: "permission required: " + string(p),
				Metadata: map[string]string{"permission": string(p)},
			},
		}
	}
	type client = userv1connect.UserServiceClient
	return map[string]failing{
		"no credentials":     refused("", user.CredentialsMissing, "credentials required"),
		"no bearer token":    refused("Basic YTpi", user.CredentialsInvalid, "Authorization header: must be a single bearer token"),
		"no token":           refused("Bearer x", user.CredentialsInvalid, "invalid credentials"),
		"token of others":    refused("Bearer "+k.foreign, user.CredentialsInvalid, "token signed with an unknown key"),
		"token that expired": refused("Bearer "+k.expired, user.CredentialsExpired, "credentials expired"),
		"procedure": missing(auth.UsersWrite, func(ctx context.Context, c client) error {
			_, err := c.CreateUser(ctx, &userv1.CreateUserRequest{Username: "eve", Email: "eve@example.com"})
			return err
		}, request{method: "POST", path: "/api/v1/users", body: `{"username": "eve", "email": "eve@example.com"}`}),
		"what the request asks for": missing(auth.UsersReadDeleted, func(ctx context.Context, c client) error {
			_, err := c.ListUsers(ctx, &userv1.ListUsersRequest{ShowDeleted: true})
			return err
		}, request{method: "GET", path: "/api/v1/users?showDeleted=true"}),
		"stream": missing(auth.ActivitiesRead, openStream, request{
			method: "GET", path: "/api/v1/users/0/activities", header: http.Header{"Accept": {"application/x-ndjson"}},
		}),
	}
}

// An authentication or authorization failure is the same error over every protocol.
func TestAuthErrorsAreEqualOverAllProtocols(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, servertest.Parallel())
	reader := g.token(t, "reader", time.Hour, auth.UsersRead)
	other := guarded{keys: t.TempDir()}
	k := tokens{reader: reader, expired: g.expire(t, reader), foreign: other.token(t, "reader", time.Hour, auth.UsersRead)}
	for name, row := range k.rows() {
		t.Run(name, func(t *testing.T) { row.compare(t, g.Server) })
	}
	if after, err := g.Store().Head(t.Context()); err != nil || after.Position != 0 {
		t.Errorf("store head = %v, %v, want it unchanged", after, err)
	}
}

// expire returns the token with times in the past and a valid signature.
func (g guarded) expire(t *testing.T, token string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(g.keys, "userd-development-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, ok := parsed.(ed25519.PrivateKey)
	parts := strings.Split(token, ".")
	if !ok || len(parts) != 3 {
		t.Fatalf("got a %T, and a token of %d parts", parsed, len(parts))
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(body, &claims); err != nil {
		t.Fatal(err)
	}
	claims["iat"], claims["exp"] = time.Now().Add(-2*time.Hour).Unix(), time.Now().Add(-time.Hour).Unix()
	if body, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	signed := parts[0] + "." + base64.RawURLEncoding.EncodeToString(body)
	return signed + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(key, []byte(signed)))
}
