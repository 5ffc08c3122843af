package server_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/telemetry"
	"github.com/yourorg/userservice/service/user"
)

// fetch returns the status and the body of a GET.
func fetch(t *testing.T, url string) (int, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func TestMetricsAfterCalls(t *testing.T) {
	g := startGuarded(t, servertest.Admin())
	client := g.grpc(g.token(t, "ann", time.Hour, auth.UsersWrite, auth.UsersRead))
	if _, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
	wantError(t, err, connect.CodeNotFound, user.UserNotFound)
	_, err = g.grpc("").GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
	wantError(t, err, connect.CodeUnauthenticated, user.CredentialsMissing)

	status, text := fetch(t, g.AdminURL()+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("got %d %s", status, text)
	}
	for _, want := range []string{
		`grpc_server_started_total{grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_server_handled_total{grpc_code="NotFound",grpc_method="GetUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_server_msg_received_total{grpc_method="GetUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_server_msg_sent_total{grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_server_handling_seconds_count{grpc_method="CreateUser",grpc_service="user.v1.UserService",grpc_type="unary"} 1`,
		`grpc_request_duration_seconds_count{method="/user.v1.UserService/GetUser",status="NotFound"} 1`,
		`userd_open_streams{grpc_method="StreamUserActivities",grpc_service="user.v1.UserService",grpc_type="server_stream"} 0`,
		`userd_errors_total{reason="USER_NOT_FOUND"} 1`,
		`userd_authentication_failures_total{reason="missing"} 1`,
		`userd_http_unhandled_total{code="grpc_16",protocol="grpc"} 1`,
		"userd_log_position 1\n", "userd_log_first_position 1\n", "userd_feed_position 1\n", "userd_feed_lag_rows 0\n", "userd_slot_waiters 0\n", "userd_slots_lent_total ",
		"userd_commit_changes_count 1\n", "userd_commit_sync_seconds_count 1\n",
		"userd_serves_reads 1\n", "userd_serves_writes 1\n", "userd_store_read_only 0\n", "userd_draining 0\n",
		`userd_streams_aborted_total{reason="write_stalled"} 0`, "userd_build_info{", "go_goroutines ",
		`userd_housekeeping_items_total{step="purge"} 0`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics have no %s", want)
		}
	}
	if strings.Contains(text, "userd_store_size_bytes 0\n") || !strings.Contains(text, "userd_store_size_bytes ") {
		t.Error("the store has no size")
	}
	if t.Failed() {
		for line := range strings.Lines(text) {
			if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "go_") && !strings.HasSuffix(line, " 0\n") {
				t.Log(line)
			}
		}
	}
}

// A trace covers call and store, and its id is in the log.
func TestSpansReachCollector(t *testing.T) {
	var mu sync.Mutex
	names := map[string][]string{} // span names by trace
	receiver := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var got collector.ExportTraceServiceRequest
		if err == nil {
			err = proto.Unmarshal(body, &got)
		}
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, resource := range got.GetResourceSpans() {
			for _, scope := range resource.GetScopeSpans() {
				for _, span := range scope.GetSpans() {
					id := string(span.GetTraceId())
					names[id] = append(names[id], span.GetName())
				}
			}
		}
	}))
	defer receiver.Close()
	for name, value := range map[string]string{
		"OTEL_SDK_DISABLED": "", "OTEL_TRACES_EXPORTER": "otlp", "OTEL_TRACES_SAMPLER": "always_on",
		"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.URL,
	} {
		t.Setenv(name, value)
	}
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.TracingOptions{Service: "userd"})
	if err != nil {
		t.Fatal(err)
	}
	var log lockedBuffer
	s := servertest.Start(t, servertest.Tracing(tracing), servertest.Log(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	if _, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"}); err != nil {
		t.Fatal(err)
	}
	s.Stop() // its last step flushes spans
	mu.Lock()
	defer mu.Unlock()
	for id, spans := range names {
		all := strings.Join(spans, " ")
		if !strings.Contains(all, "user.v1.UserService/CreateUser") || !strings.Contains(all, "store.Submit") {
			t.Errorf("got spans %s", all)
		}
		log.await(t, `"trace_id":"`+hexOf(id)+`"`)
	}
	if len(names) != 1 {
		t.Errorf("got %d traces", len(names))
	}
	log.await(t, "flush spans")
}

func hexOf(id string) string {
	const digits = "0123456789abcdef"
	var b strings.Builder
	for _, c := range []byte(id) {
		_ = b.WriteByte(digits[c>>4])
		_ = b.WriteByte(digits[c&15])
	}
	return b.String()
}

// Log lines have procedure, caller and result; successful calls are sampled. No line has a token.
func TestLogLinesOfCalls(t *testing.T) {
	var log lockedBuffer
	g := startGuarded(t, servertest.Log(slog.NewJSONHandler(&log, nil)))
	token := g.token(t, "ann", time.Hour, auth.UsersWrite, auth.UsersRead)
	client := g.grpc(token)
	id := "6f1c0c5e-7d7c-4a5e-9d5b-0a4f3b1c2d3e"
	if _, err := client.CreateUser(t.Context(), &userv1.CreateUserRequest{
		Username: "ada", Email: "ada@example.com", RequestId: id,
	}); err != nil {
		t.Fatal(err)
	}
	line := lineOf(t, &log, `CreateUser`)
	for key, want := range map[string]any{
		"msg": "finished call", "level": "INFO", "procedure": "/user.v1.UserService/CreateUser", "protocol": "grpc", "code": "ok",
		"caller": "ann", "request_id": id,
	} {
		if line[key] != want {
			t.Errorf("%s: got %v, want %v", key, line[key], want)
		}
	}
	if peer, _ := line["peer"].(string); !strings.HasPrefix(peer, "127.0.0.1:") || line["duration"] == nil {
		t.Errorf("got %v", line)
	}
	for range 50 {
		if _, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
		wantError(t, err, connect.CodeNotFound, user.UserNotFound)
	}
	// An invalid token is logged only by the reason of its rejection.
	_, err := g.grpc(token[:len(token)-6]+"AAAAAA").GetUser(t.Context(), &userv1.GetUserRequest{UserId: 42})
	wantError(t, err, connect.CodeUnauthenticated, user.CredentialsInvalid)
	g.Stop()
	text := log.String()
	if got := strings.Count(text, "/ListUsers"); got < 1 || got > 20 {
		t.Errorf("50 fast calls logged %d lines", got)
	}
	if got := strings.Count(text, `"code":"not_found"`); got != 3 {
		t.Errorf("3 failures logged %d lines", got)
	}
	refused := lineOf(t, &log, `"auth_failure":"signature"`)
	if refused["path"] != "/user.v1.UserService/GetUser" || strings.Count(text, `"auth_failure"`) != 1 {
		t.Errorf("got %v", refused)
	}
	for _, part := range strings.Split(token, ".") {
		if strings.Contains(text, part[:len(part)-8]) {
			t.Errorf("the log has a part of the token: %s", part)
		}
	}
}

func lineOf(t *testing.T, log *lockedBuffer, text string) map[string]any {
	t.Helper()
	var line map[string]any
	if err := json.Unmarshal([]byte(log.await(t, text)), &line); err != nil {
		t.Fatal(err)
	}
	return line
}

func TestConnectGetIsConditional(t *testing.T) {
	var log lockedBuffer
	s := servertest.Start(t, servertest.Log(slog.NewTextHandler(&log, nil)))
	created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	message, err := json.Marshal(map[string]any{"userId": created.GetUser().GetUserId()})
	if err != nil {
		t.Fatal(err)
	}
	get := func(etag string) (reply, string) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://userd.test/user.v1.UserService/GetUser?connect=v1&encoding=json&message="+string(message), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		request.URL.RawQuery = strings.NewReplacer("{", "%7B", "}", "%7D", `"`, "%22").Replace(request.URL.RawQuery)
		if etag != "" {
			request.Header.Set("If-None-Match", etag)
		}
		response, err := s.HTTP(false).Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply{response.StatusCode, response.Header}, string(body)
	}
	first, body := get("")
	etag := first.Header.Get("Etag")
	if first.StatusCode != http.StatusOK || etag == "" || !strings.Contains(body, "ada@example.com") {
		t.Fatalf("got %d %q %s", first.StatusCode, etag, body)
	}
	again, body := get(etag)
	if again.StatusCode != http.StatusNotModified || body != "" || again.Header.Get("Etag") != etag {
		t.Errorf("got %d %q", again.StatusCode, body)
	}
	if _, err := s.GRPC().UpdateUser(t.Context(), &userv1.UpdateUserRequest{
		UserId: created.GetUser().GetUserId(), User: &userv1.User{Email: "eve@example.com"},
	}); err != nil {
		t.Fatal(err)
	}
	if changed, body := get(etag); changed.StatusCode != http.StatusOK || !strings.Contains(body, "eve@example.com") {
		t.Errorf("got %d %s", changed.StatusCode, body)
	}
}

func TestReflectionListsHealth(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	client := grpcreflect.NewClient(s.HTTP(true), "http://userd.test", connect.WithGRPC())
	stream := client.NewStream(t.Context())
	for _, name := range []string{grpchealth.HealthV1ServiceName, userv1connect.UserServiceName} {
		files, err := stream.FileContainingSymbol(protoreflect.FullName(name))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: got %d files, %v", name, len(files), err)
		}
	}
	if _, err := stream.Close(); err != nil {
		t.Error(err)
	}
}

// A client stream that waits for its client ends with the shutdown; received items are applied.
func TestDrainEndsClientStreams(t *testing.T) {
	s := servertest.Start(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	updates := connect.NewClient[userv1.UpdateUserRequest, userv1.BatchUpdateUsersResponse](s.HTTP(true),
		"http://userd.test"+userv1connect.UserServiceBatchUpdateUsersProcedure, connect.WithGRPC()).CallClientStream(ctx)
	if err := updates.Send(&userv1.UpdateUserRequest{UserId: 1, User: &userv1.User{Username: "ada"}}); err != nil {
		t.Fatal(err)
	}
	reflection := grpcreflect.NewClient(s.HTTP(true), "http://userd.test", connect.WithGRPC()).NewStream(ctx)
	if _, err := reflection.ListServices(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	s.Stop()
	if took := time.Since(began); took > 4*time.Second { // the grace period of calls is five seconds
		t.Errorf("shutdown took %v, want no wait for an idle stream", took)
	}
	wantError(t, receiveBeforeClosing(updates), connect.CodeUnavailable, user.ServerDraining)
	_, _ = reflection.Close()
}
