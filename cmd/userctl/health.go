package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/yourorg/userservice/client"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
)

// healthTimeout bounds a health check.
const healthTimeout = 5 * time.Second

// healthCommand is userctl health.
type healthCommand struct{}

// Run checks each server. It fails if one is not serving.
func (healthCommand) Run(ctx context.Context, s *session) error {
	var failed error
	rows := newList(s.output, func(r *structpb.Struct) []string {
		return []string{r.GetFields()["server"].GetStringValue(), r.GetFields()["status"].GetStringValue()}
	}, "SERVER", "STATUS")
	for _, server := range s.servers {
		status, err := s.check(ctx, server)
		if err == nil && status != grpchealth.StatusServing {
			err = newUnavailableError(server, "is "+healthText(status))
		}
		text := healthText(status)
		if err != nil {
			failed = err
			if status == grpchealth.StatusUnknown {
				text = "unreachable"
			}
		}
		row := &structpb.Struct{Fields: map[string]*structpb.Value{
			"server": structpb.NewStringValue(server), "status": structpb.NewStringValue(text),
		}}
		if err := rows.add(row); err != nil {
			return err
		}
	}
	return rows.endWith(failed)
}

func healthText(status grpchealth.Status) string {
	return strings.ReplaceAll(strings.ToLower(status.String()), "_", " ")
}

// check returns the health of the user service of a server.
func (s *session) check(ctx context.Context, server string) (grpchealth.Status, error) {
	transport, err := client.NewTransport(server, s.options...)
	if err != nil {
		return grpchealth.StatusUnknown, err
	}
	defer func() { _ = transport.Close() }()
	httpClient := &http.Client{Transport: transport}
	url := strings.TrimPrefix(server, "dns+")
	if strings.HasPrefix(url, "unix:") {
		url = "http://localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	response, err := grpchealth.NewClient(httpClient, url, connect.WithGRPC()).
		Check(ctx, &grpchealth.CheckRequest{Service: userv1connect.UserServiceName})
	if err != nil {
		return grpchealth.StatusUnknown, &client.Error{Code: connect.CodeOf(err), Message: fmt.Sprintf("%s: %v", server, err)}
	}
	return response.Status, nil
}

// reach fails if no server can be reached. Streams call it first, because the client retries them indefinitely.
func (s *session) reach(ctx context.Context) error {
	var failed error
	for _, server := range s.servers {
		_, err := s.check(ctx, server)
		if exitStatus(err) != statusUnavailable {
			return nil // it responded
		}
		failed = err
	}
	return failed
}

func newUnavailableError(server, problem string) error {
	return &client.Error{Code: connect.CodeUnavailable, Message: server + " " + problem}
}
