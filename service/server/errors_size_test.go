package server_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// largestError is the maximum size of an error: gRPC clients drop headers above 8 KiB.
const largestError = 6 << 10

// weighing is a RoundTripper that measures the body and the trailers of responses.
type weighing struct {
	http.RoundTripper

	bytes int
}

func (w *weighing) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := w.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(res.Body)
	_ = res.Body.Close()
	if err != nil {
		return nil, err
	}
	res.Body = io.NopCloser(bytes.NewReader(body))
	w.bytes = len(body)
	for _, header := range []http.Header{res.Header, res.Trailer} {
		w.bytes += len(header.Get("Grpc-Message")) + len(header.Get("Grpc-Status-Details-Bin"))
	}
	return res, nil
}

// badUser violates many rules.
func badUser(tags, entries int, long string) *userv1.CreateUserRequest {
	req := &userv1.CreateUserRequest{Username: "ada", Email: "ada@example.com", Metadata: map[string]string{}}
	for range tags {
		req.Tags = append(req.Tags, long)
	}
	for i := range entries {
		req.Metadata[fmt.Sprintf("%s%d", long, i)] = strings.Repeat("v", 1025)
	}
	return req
}

func TestErrorsStayBelowSixKiB(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	requests := map[string]*userv1.CreateUserRequest{
		"12 tags and 12 entries": badUser(12, 12, strings.Repeat("x", 65)),
		"64 tags and 64 entries": badUser(64, 64, strings.Repeat("\U0001F600", 65)),
		"keys of markup":         badUser(0, 64, strings.Repeat("<", 300)),
		"keys of controls":       badUser(0, 64, strings.Repeat("\x01", 2000)),
	}
	s.Each(t, func(t *testing.T, _ userv1connect.UserServiceClient, p servertest.Protocol) {
		for name, req := range requests {
			client := *s.HTTP(p.HTTP2)
			weight := &weighing{RoundTripper: client.Transport}
			client.Transport = weight
			_, err := userv1connect.NewUserServiceClient(&client, "http://userd.test", p.Options...).CreateUser(t.Context(), req)
			wantError(t, err, connect.CodeInvalidArgument, user.InvalidField)
			if n := len(detail[*errdetails.BadRequest](t, err).GetFieldViolations()); n == 0 || weight.bytes >= largestError {
				t.Errorf("%s: %d violations in %d bytes, want some in less than %d", name, n, weight.bytes, largestError)
			}
		}
	})
	for name, req := range requests {
		body, err := json.Marshal(map[string]any{"username": "ada", "tags": req.GetTags(), "metadata": req.GetMetadata()})
		if err != nil {
			t.Fatal(err)
		}
		code, response := request{method: http.MethodPost, path: "/api/v1/users", body: string(body)}.send(t, s.HTTP(false))
		if code != http.StatusBadRequest || len(response) >= largestError || len(contentFromREST(t, response).Fields) == 0 {
			t.Errorf("REST, %s: %d with %d bytes, want 400 in less than %d", name, code, len(response), largestError)
		}
	}
}

// Texts of the client are truncated in errors.
func TestErrorsTruncateClientTexts(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servertest.Parallel())
	long := strings.Repeat("x", 50_000)
	const rpc = "/user.v1.UserService/"
	for name, r := range map[string]request{
		"field of a message":  {method: "POST", path: rpc + "GetUser", body: `{"` + long + `": 1}`},
		"value of a message":  {method: "POST", path: rpc + "GetUser", body: `{"userId": "` + long + `"}`},
		"number of a message": {method: "POST", path: rpc + "GetUser", body: `{"userId": 1` + strings.Repeat("0", 50_000) + `}`},
		"enum of a message":   {method: "POST", path: rpc + "UpdateUserStatus", body: `{"userId": "1", "status": "` + long + `"}`},
		"key of a message":    {method: "POST", path: rpc + "CreateUser", body: `{"metadata": {"` + long + `": 1}}`},
		"filter":              {method: "POST", path: rpc + "ListUsers", body: `{"filter": "` + long[:2000] + ` = 1"}`},
		"page token":          {method: "POST", path: rpc + "ListUsers", body: `{"pageToken": "` + long[:4000] + `"}`},
		"mask":                {method: "POST", path: rpc + "UpdateUser", body: `{"userId": "1", "user": {}, "updateMask": "` + long + `"}`},
		"field of a resource": {method: "POST", path: "/api/v1/users", body: `{"` + long + `": 1}`},
		"value of a resource": {method: "POST", path: "/api/v1/users", body: `{"username": "ada", "email": ` + strings.Repeat("1", 50_000) + `}`},
		"name in a query":     {method: "GET", path: "/api/v1/users?" + long + "=1"},
		"value in a query":    {method: "GET", path: "/api/v1/users?pageSize=" + long},
		"mask in a query":     {method: "PATCH", path: "/api/v1/users/1?updateMask=" + long, body: `{}`},
		"id in a path":        {method: "GET", path: "/api/v1/users/" + long},
		"precondition":        {method: "DELETE", path: "/api/v1/users/1", header: http.Header{"If-Match": {long}}},
		"timeout of Connect":  {method: "POST", path: rpc + "GetUser", body: `{}`, header: http.Header{"Connect-Timeout-Ms": {long}}},
		"version of Connect":  {method: "POST", path: rpc + "GetUser", body: `{}`, header: http.Header{"Connect-Protocol-Version": {long}}},
		"coding of a message": {method: "POST", path: rpc + "GetUser", body: `{}`, header: http.Header{"Content-Encoding": {long}}},
		"encoding of a GET":   {method: "GET", path: rpc + "GetUser?connect=v1&message=x&encoding=" + long},
		"coding of a GET":     {method: "GET", path: rpc + "GetUser?connect=v1&message=x&encoding=json&compression=" + long},
	} {
		t.Run(name, func(t *testing.T) {
			code, body := r.send(t, s.HTTP(false))
			if code < 400 || code >= 500 || len(body) >= largestError {
				t.Errorf("%d with %d bytes, want a refusal in less than %d: %.300s", code, len(body), largestError, body)
			}
		})
	}
	for _, header := range []string{"Grpc-Timeout", "Grpc-Encoding"} {
		client := *s.HTTP(true)
		weight := &weighing{RoundTripper: headed{client.Transport, http.Header{header: {long}}}}
		client.Transport = weight
		p := servertest.Protocols()[slices.IndexFunc(servertest.Protocols(), func(p servertest.Protocol) bool { return p.Name == "gRPC" })]
		_, err := userv1connect.NewUserServiceClient(&client, "http://userd.test", p.Options...).GetUser(t.Context(), &userv1.GetUserRequest{UserId: 1})
		if err == nil || weight.bytes >= largestError {
			t.Errorf("%s: %v in %d bytes, want less than %d", header, connect.CodeOf(err), weight.bytes, largestError)
		}
	}
}
