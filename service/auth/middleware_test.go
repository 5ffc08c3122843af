package auth_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/user"
)

// gate is a server with only the middleware. It records the callers that pass.
type gate struct {
	*httptest.Server

	mu       sync.Mutex
	through  []auth.Caller
	refusals []auth.Cause
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.through = append(g.through, auth.FromContext(r.Context()))
	w.WriteHeader(http.StatusTeapot)
}

// passed returns and resets the recorded callers.
func (g *gate) passed() []auth.Caller {
	g.mu.Lock()
	defer g.mu.Unlock()
	through := g.through
	g.through = nil
	return through
}

func newGate(t *testing.T, opts auth.MiddlewareOptions) *gate {
	t.Helper()
	g := new(gate)
	opts.OnRefused = func(_ *http.Request, refused *auth.RefusedError) {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.refusals = append(g.refusals, refused.Cause)
	}
	if opts.Policy == nil {
		opts.Policy = auth.NewPolicy(auth.ReflectionOff)
	}
	g.Server = httptest.NewUnstartedServer(auth.Middleware(opts)(g))
	g.EnableHTTP2 = true
	t.Cleanup(g.Close)
	return g
}

func tokensOnly(t *testing.T) func(*http.Request) (auth.Caller, error) {
	t.Helper()
	a, err := auth.NewAuthenticator(auth.Options{
		Tokens: newVerifier(t, jwks(map[string]crypto.Signer{"ed": edKey()}), nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a.Authenticate
}

func TestRejectionUsesTheProtocolOfTheRequest(t *testing.T) {
	g := newGate(t, auth.MiddlewareOptions{Authenticate: tokensOnly(t)})
	g.StartTLS()
	good := "Bearer " + tokenOf("ed")
	late := "Bearer " + sign(edKey(), "EdDSA", head("EdDSA", "ed"), goodClaims(time.Now().Add(-2*time.Hour)))
	for _, credentials := range []struct {
		header string
		reason user.Reason
	}{{"", user.CredentialsMissing}, {"Bearer x", user.CredentialsInvalid}, {late, user.CredentialsExpired}, {good, ""}} {
		for protocol, options := range map[string][]connect.ClientOption{
			"connect": nil, "connect json": {connect.WithProtoJSON()}, "grpc": {connect.WithGRPC()}, "grpc-web": {connect.WithGRPCWeb()},
		} {
			for kind, call := range calls {
				err := call(t.Context(), g, credentials.header, options...)
				if credentials.reason == "" {
					if len(g.passed()) != 1 {
						t.Errorf("%s, %s: valid token rejected: %v", protocol, kind, err)
					}
					continue
				}
				if got := reasonOf(err); connect.CodeOf(err) != connect.CodeUnauthenticated || got != credentials.reason {
					t.Errorf("%s, %s, %.10q: error %v with reason %q", protocol, kind, credentials.header, err, got)
				}
				if len(g.passed()) != 0 {
					t.Errorf("%s, %s, %.10q: request passed", protocol, kind, credentials.header)
				}
			}
		}
	}
}

// calls makes one call of each kind. The handler does not implement them.
var calls = map[string]func(context.Context, *gate, string, ...connect.ClientOption) error{
	"unary": func(ctx context.Context, g *gate, header string, options ...connect.ClientOption) error {
		request := connect.NewRequest(&emptypb.Empty{})
		setHeader(request.Header(), header)
		_, err := rpc(g, userv1connect.UserServiceGetUserProcedure, options).CallUnary(ctx, request)
		return err
	},
	"server stream": func(ctx context.Context, g *gate, header string, options ...connect.ClientOption) error {
		request := connect.NewRequest(&emptypb.Empty{})
		setHeader(request.Header(), header)
		stream, err := rpc(g, userv1connect.UserServiceWatchUserStatusProcedure, options).CallServerStream(ctx, request)
		if err != nil {
			return err
		}
		defer func() { _ = stream.Close() }()
		stream.Receive()
		return stream.Err()
	},
	"client stream": func(ctx context.Context, g *gate, header string, options ...connect.ClientOption) error {
		stream := rpc(g, userv1connect.UserServiceBatchUpdateUsersProcedure, options).CallClientStream(ctx)
		setHeader(stream.RequestHeader(), header)
		_, err := stream.CloseAndReceive()
		return err
	},
	"bidi stream": func(ctx context.Context, g *gate, header string, options ...connect.ClientOption) error {
		stream := rpc(g, userv1connect.UserServiceSyncUserStatusProcedure, options).CallBidiStream(ctx)
		setHeader(stream.RequestHeader(), header)
		defer func() { _ = stream.CloseResponse() }()
		_ = stream.CloseRequest()
		_, err := stream.Receive()
		return err
	},
}

func rpc(g *gate, procedure string, options []connect.ClientOption) *connect.Client[emptypb.Empty, emptypb.Empty] {
	return connect.NewClient[emptypb.Empty, emptypb.Empty](g.Client(), g.URL+procedure, options...)
}

func setHeader(h http.Header, authorization string) {
	if authorization != "" {
		h.Set("Authorization", authorization)
	}
}

func reasonOf(err error) user.Reason {
	var e *connect.Error
	if !errors.As(err, &e) {
		return ""
	}
	for _, detail := range e.Details() {
		if value, err := detail.Value(); err == nil {
			if info, ok := value.(*errdetails.ErrorInfo); ok && info.GetDomain() == "user.v1" {
				return user.Reason(info.GetReason())
			}
		}
	}
	return ""
}

// Plain HTTP gets status 401 with a challenge. Below the REST prefix the body is a
// google.rpc.Status.
func TestRejectionOverPlainHTTP(t *testing.T) {
	g := newGate(t, auth.MiddlewareOptions{Authenticate: tokensOnly(t)})
	g.Start()
	for _, row := range []struct {
		method, path, header string
		challenge            string
		reason               user.Reason
	}{
		{http.MethodGet, "/api/v1/users/1", "", `Bearer realm="userd"`, user.CredentialsMissing},
		{http.MethodPost, "/api/v1/users", "Bearer a.b", `Bearer realm="userd", error="invalid_token"`, user.CredentialsInvalid},
		{http.MethodDelete, "/api/v1/users/1", "Basic x", `Bearer realm="userd", error="invalid_token"`, user.CredentialsInvalid},
		{http.MethodGet, "/api/v1/users:watchStatus", "", `Bearer realm="userd"`, user.CredentialsMissing},
		{http.MethodGet, "/nothing/here", "", `Bearer realm="userd"`, ""},
		{http.MethodPost, "/user.v1.UserService/GetUser", "", `Bearer realm="userd"`, ""},
	} {
		request, err := http.NewRequestWithContext(t.Context(), row.method, g.URL+row.path, strings.NewReader(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		setHeader(request.Header, row.header)
		response, err := g.Client().Do(request)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusUnauthorized || response.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s %s = %d, %s, want 401, application/json", row.method, row.path, response.StatusCode, response.Header.Get("Content-Type"))
		}
		if got := response.Header.Get("WWW-Authenticate"); !strings.HasPrefix(got, row.challenge) {
			t.Errorf("%s %s: challenge %q", row.method, row.path, got)
		}
		if row.reason == "" {
			continue // Connect errors are tested above
		}
		var st status.Status
		if err := protojson.Unmarshal(body, &st); err != nil {
			t.Fatalf("%s %s: got %s: %v", row.method, row.path, body, err)
		}
		info := new(errdetails.ErrorInfo)
		if code.Code(st.GetCode()) != code.Code_UNAUTHENTICATED || len(st.GetDetails()) != 1 ||
			st.GetDetails()[0].UnmarshalTo(info) != nil || info.GetReason() != string(row.reason) {
			t.Errorf("%s %s: got %s", row.method, row.path, body)
		}
	}
	if len(g.passed()) != 0 {
		t.Error("a request passed")
	}
}

func TestRejectionDoesNotReadTheBody(t *testing.T) {
	var read atomic.Int64
	handler := auth.Middleware(auth.MiddlewareOptions{
		Authenticate: tokensOnly(t), Policy: auth.NewPolicy(auth.ReflectionOff),
	})(http.NotFoundHandler())
	for _, kind := range []string{"application/grpc", "application/grpc-web+proto", "application/connect+json", "application/proto", "application/json"} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, userv1connect.UserServiceCreateUserProcedure, &countedBody{read: &read})
		request.Header.Set("Content-Type", kind)
		handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	if read.Load() != 0 {
		t.Errorf("%d body reads, want 0", read.Load())
	}
}

type countedBody struct{ read *atomic.Int64 }

func (b *countedBody) Read([]byte) (int, error) {
	b.read.Add(1)
	return 0, io.EOF
}

// Other spellings of an open path need credentials.
func TestOpenPaths(t *testing.T) {
	const reflect = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	for _, row := range []struct {
		reflection auth.Reflection
		path       string
		open       bool
	}{
		{auth.ReflectionOff, "/grpc.health.v1.Health/Check", true},
		{auth.ReflectionOff, "/grpc.health.v1.Health/Watch", true},
		{auth.ReflectionOff, "/", true},
		{auth.ReflectionOff, "/openapi.yaml", true},
		{auth.ReflectionOff, "/console/app.js", true},
		{auth.ReflectionOff, "/console", false},
		{auth.ReflectionOff, reflect, false},
		{auth.ReflectionCallers, reflect, false},
		{auth.ReflectionOpen, reflect, true},
		{auth.ReflectionOpen, userv1connect.UserServiceGetUserProcedure, false},
		{auth.ReflectionOpen, "/user.v1.UserService/%47etUser", false},
		{auth.ReflectionOpen, "/api/v1/users", false},
		{auth.ReflectionOpen, "/grpc.health.v1.Health/check", false},
		{auth.ReflectionOpen, "//grpc.health.v1.Health/Check", false},
		{auth.ReflectionOpen, "/openapi.yaml/", false},
		{auth.ReflectionOpen, "/./", false},
	} {
		g := newGate(t, auth.MiddlewareOptions{
			Authenticate: tokensOnly(t), Policy: auth.NewPolicy(row.reflection), OpenPaths: []string{"/", "/openapi.yaml", "/console/*"},
		})
		g.Config.Handler.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodPost, row.path, http.NoBody))
		through := g.passed()
		if (len(through) == 1) != row.open {
			t.Errorf("%s: passed %v, want %v", row.path, through, row.open)
		}
		for _, c := range through {
			if c != (auth.Caller{}) {
				t.Errorf("%s: caller = %+v, want none", row.path, c)
			}
		}
	}
}

func TestAuthenticationDisabled(t *testing.T) {
	g := newGate(t, auth.MiddlewareOptions{})
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, userv1connect.UserServiceGetUserProcedure, http.NoBody)
	request.Header.Set("Authorization", "Bearer whatever")
	g.Config.Handler.ServeHTTP(httptest.NewRecorder(), request)
	if got := g.passed(); len(got) != 1 || got[0] != auth.FullAccess() || got[0].Subject != "" {
		t.Errorf("callers = %+v", got)
	}
}

func TestOnRefused(t *testing.T) {
	g := newGate(t, auth.MiddlewareOptions{Authenticate: tokensOnly(t)})
	for _, header := range []string{"", "Bearer forged\nline", "Bearer a.b.c"} {
		request := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/users", http.NoBody)
		if header != "" {
			request.Header["Authorization"] = []string{header}
		}
		g.Config.Handler.ServeHTTP(httptest.NewRecorder(), request)
	}
	want := []auth.Cause{auth.CauseMissing, auth.CauseMalformed, auth.CauseMalformed}
	if len(g.refusals) != len(want) || g.refusals[0] != want[0] || g.refusals[1] != want[1] || g.refusals[2] != want[2] {
		t.Errorf("causes = %v, want %v", g.refusals, want)
	}
}

// Client certificates of a trusted CA, of another CA, and none, with real handshakes.
func TestMutualTLS(t *testing.T) {
	authority, stranger := newAuthority(t), newAuthority(t)
	a, err := auth.NewAuthenticator(auth.Options{Certificates: loadRules(t)})
	if err != nil {
		t.Fatal(err)
	}
	g := newGate(t, auth.MiddlewareOptions{Authenticate: a.Authenticate})
	pool := x509.NewCertPool()
	pool.AddCert(authority.cert)
	g.TLS = &tls.Config{ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, MinVersion: tls.VersionTLS12}
	g.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	g.StartTLS()
	for _, row := range []struct {
		name    string
		show    *tls.Certificate
		status  int // 0: the handshake fails
		subject string
	}{
		{"known", authority.issue(t, "web.clients.example.org"), http.StatusTeapot, "cert:web.clients.example.org"},
		{"stranger", stranger.issue(t, "web.clients.example.org"), 0, ""},
		{"none", nil, http.StatusUnauthorized, ""},
	} {
		transport := as[*http.Transport](g.Client().Transport).Clone()
		// Sent regardless of the CAs that the server names.
		transport.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			if row.show == nil {
				return new(tls.Certificate), nil
			}
			return row.show, nil
		}
		client := &http.Client{Transport: transport}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, g.URL+"/api/v1/users", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		if response, err := client.Do(request); err == nil {
			got = response.StatusCode
			_ = response.Body.Close()
		}
		transport.CloseIdleConnections()
		through := g.passed()
		if got != row.status || (len(through) == 1) != (row.subject != "") || row.subject != "" && through[0].Subject != row.subject {
			t.Errorf("%s: status %d, callers %+v", row.name, got, through)
		}
	}
}
