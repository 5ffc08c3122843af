package server_test

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/server"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// A certificate identifies the caller over HTTP/1.1 and HTTP/2, also in the log.
func TestIdentityByCertificate(t *testing.T) {
	authority, stranger := servertest.NewAuthority(t), servertest.NewAuthority(t)
	dir := t.TempDir()
	cert, key := authority.Server(t).Write(t, dir)
	rules := servertest.WriteFile(t, dir, "rules.json", []byte(`{"rules": [
		{"uri": "spiffe://example.org/writer", "permissions": ["users.write"]},
		{"uri": "spiffe://example.org/*", "permissions": ["users.read", "activities.read"]}]}`))
	authorities := servertest.WriteFile(t, dir, "ca.pem", authority.PEM)
	s := servertest.Start(t, servertest.Config(func(c *server.Config) {
		c.TLSCert, c.TLSKey, c.TLSClientCA, c.TLSClientRules = cert, key, authorities, rules
	}))
	as := func(a *servertest.Authority, name string, http2 bool, options ...connect.ClientOption) userv1connect.UserServiceClient {
		config := authority.Trust()
		if a != nil {
			pair := a.Client(t, name).Pair(t)
			// Sent regardless of the CAs that the server requests.
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		}
		return userv1connect.NewUserServiceClient(overTLS(t, s, config, http2), "https://userd.test", options...)
	}
	ways := map[string]func(*servertest.Authority, string) userv1connect.UserServiceClient{
		"gRPC": func(a *servertest.Authority, name string) userv1connect.UserServiceClient {
			return as(a, name, true, connect.WithGRPC())
		},
		"Connect over HTTP/1.1": func(a *servertest.Authority, name string) userv1connect.UserServiceClient { return as(a, name, false) },
	}
	for way, dial := range ways {
		t.Run(way, func(t *testing.T) {
			name := strings.ToLower(way[:4])
			create := &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"}
			created, err := dial(authority, "spiffe://example.org/writer").CreateUser(t.Context(), create)
			if err != nil {
				t.Fatal(err)
			}
			reader := dial(authority, "spiffe://example.org/reader")
			rows, err := reader.ListUserActivities(t.Context(), &userv1.ListUserActivitiesRequest{UserId: created.GetUser().GetUserId()})
			if err != nil || len(rows.GetActivities()) != 1 || rows.GetActivities()[0].GetDetails()["actor"] != "cert:spiffe://example.org/writer" {
				t.Errorf("got %v, %v", rows, err)
			}
			_, err = reader.CreateUser(t.Context(), create)
			wantError(t, err, connect.CodePermissionDenied, user.PermissionMissing)
			_, err = dial(authority, "spiffe://example.com/writer").GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
			wantError(t, err, connect.CodePermissionDenied, user.PermissionMissing)
			_, err = dial(nil, "").GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
			wantError(t, err, connect.CodeUnauthenticated, user.CredentialsMissing)
			// The handshake fails. The error of the client depends on timing.
			if _, err = dial(stranger, "spiffe://example.org/writer").GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1}); err == nil || connect.IsWireError(err) {
				t.Errorf("a certificate of another authority: got %v", err)
			}
		})
	}
}

// overTLS returns a client whose requests to any host go to the server.
func overTLS(t *testing.T, s *servertest.Server, config *tls.Config, http2 bool) *http.Client {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		TLSClientConfig: config, Protocols: &protocols,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return s.Dial(ctx) },
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
