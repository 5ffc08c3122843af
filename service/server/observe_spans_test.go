package server_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/telemetry"
)

// A stream has one span, regardless of its reads of the store, and REST spans have the protocol rest.
func TestSpansOfCalls(t *testing.T) {
	t.Setenv("OTEL_SDK_DISABLED", "")
	t.Setenv("OTEL_TRACES_EXPORTER", "console")
	t.Setenv("OTEL_TRACES_SAMPLER", "always_on")
	var spans lockedBuffer
	tracing, err := telemetry.NewTracing(t.Context(), telemetry.TracingOptions{Service: "userd", Console: &spans})
	if err != nil {
		t.Fatal(err)
	}
	s := servertest.Start(t, servertest.Tracing(tracing))
	const users = 300 // more than a page
	for i := range users / 100 {
		req := &userv1.CreateUsersRequest{}
		for j := range 100 {
			name := string(rune('a'+i)) + string(rune('a'+j/26)) + string(rune('a'+j%26))
			req.Requests = append(req.Requests, &userv1.CreateUserRequest{Username: name, Email: name + "@example.com"})
		}
		if _, err := s.GRPC().CreateUsers(t.Context(), req); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := s.GRPC().StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	for stream.Receive() {
	}
	if err := stream.Err(); err != nil {
		t.Fatal(err)
	}
	_ = stream.Close()
	fetch(t, s.URL()+"/api/v1/users/42")
	s.Stop()
	about := attributesOf(t, spans.String())
	if got := about["user.v1.UserService/StreamUserActivities"]; got["userd.protocol"] != "grpc" {
		t.Errorf("got %v", got)
	}
	if got := about["store.Log"]; got != nil {
		t.Errorf("span of a read of a stream: %v, want none", got)
	}
	if got := about["store.Submit"]; got["db.operation.batch.size"] != 100.0 {
		t.Errorf("span of a write = %v, want a batch of 100", got)
	}
	if got := about["user.v1.UserService/GetUser"]; got["userd.protocol"] != "rest" {
		t.Errorf("got %v", got)
	}
	if got := about["user.v1.UserService/CreateUsers"]; got["userd.protocol"] != "grpc" {
		t.Errorf("got %v", got)
	}
}

// attributesOf returns the attributes of console spans by name.
func attributesOf(t *testing.T, text string) map[string]map[string]any {
	t.Helper()
	all := make(map[string]map[string]any)
	decoder := json.NewDecoder(strings.NewReader(text))
	for decoder.More() {
		var span struct {
			Name       string
			Attributes []struct {
				Key   string
				Value struct{ Value any }
			}
		}
		if err := decoder.Decode(&span); err != nil {
			t.Fatal(err)
		}
		all[span.Name] = make(map[string]any)
		for _, a := range span.Attributes {
			all[span.Name][a.Key] = a.Value.Value
		}
	}
	return all
}
