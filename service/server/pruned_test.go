package server_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// A position before the oldest row is an error over each protocol of RPCs, and the position before that row
// is not. A minimum position is met by any log that has passed it.
func TestPrunedPositionsOverEachProtocol(t *testing.T) {
	t.Parallel()
	s, id := startPruned(t)
	s.Each(t, func(t *testing.T, client userv1connect.UserServiceClient, _ servertest.Protocol) {
		read := func(after int64) (rows []int64, err error) {
			stream, err := client.StreamUserActivities(t.Context(), &userv1.StreamUserActivitiesRequest{
				UserId: id, AfterActivityId: after, ReplayOnly: true,
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = stream.Close() }()
			for stream.Receive() {
				rows = append(rows, stream.Msg().GetActivityId())
			}
			return rows, stream.Err()
		}
		if rows, err := read(3); err != nil || len(rows) != 2 || rows[0] != 4 {
			t.Errorf("rows after the edge = %d, %v, want 4 and 5", rows, err)
		}
		_, err := read(2)
		wantError(t, err, connect.CodeOutOfRange, user.PositionOutOfRange)
	})
}

func TestPrunedPositionsOverREST(t *testing.T) {
	t.Parallel()
	s, id := startPruned(t)
	head, err := s.Store().Head(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const events, lines = "text/event-stream", "application/x-ndjson"
	position := func(n int64) string { return user.FormatPosition(head.Epoch, n) }
	for name, test := range map[string]struct {
		query, accept, header, value string
		status                       int
		want, not                    string
	}{
		"event stream, at the edge":     {"?replay_only=true", events, "Last-Event-ID", position(3), http.StatusOK, "id: " + position(4), "event: error"},
		"event stream, below the edge":  {"", events, "Last-Event-ID", position(2), http.StatusOK, "event: error", "id: " + position(4)},
		"event stream, position 0":      {"", events, "Last-Event-ID", position(0), http.StatusOK, "event: error", "id: " + position(4)},
		"event stream, oldest row":      {"?replay_only=true", events, "", "", http.StatusOK, "id: " + position(4), "event: error"},
		"lines, at the edge":            {"?replay_only=true", lines, "Last-Event-ID", position(3), http.StatusOK, `"activityId":"4"`, "error"},
		"lines, below the edge":         {"?after_activity_id=2", lines, "", "", http.StatusBadRequest, `"first_position":"4"`, `"activityId"`},
		"since a deleted row":           {"?replay_only=true&since=2001-01-01T00:00:00Z", lines, "", "", http.StatusOK, `"activityId":"4"`, "error"},
		"minimum position below":        {"?order=ACTIVITY_ORDER_OLDEST_FIRST", "application/json", "Userd-Min-Position", position(1), http.StatusOK, `"activityId":"4"`, "error"},
		"minimum position, other epoch": {"", "application/json", "Userd-Min-Position", "other:1", http.StatusBadRequest, `"first_position":"4"`, `"activityId"`},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+"/api/v1/users/"+strconv.FormatInt(id, 10)+"/activities"+test.query, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Accept", test.accept)
			if test.header != "" {
				req.Header.Set(test.header, test.value)
			}
			res, err := s.HTTP(false).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = res.Body.Close() }()
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			text := string(body)
			if json.Valid(body) { // remove spaces
				var value any
				_ = json.Unmarshal(body, &value)
				compact, _ := json.Marshal(value)
				text = string(compact)
			}
			if res.StatusCode != test.status || !strings.Contains(text, test.want) || strings.Contains(text, test.not) {
				t.Errorf("response = %d %s, want %d with %s and without %s", res.StatusCode, text, test.status, test.want, test.not)
			}
			if test.want == "event: error" && !strings.Contains(text, string(user.PositionOutOfRange)) {
				t.Errorf("events = %s, want POSITION_OUT_OF_RANGE", text)
			}
		})
	}
}

// startPruned starts a server with a user and a log of the rows 4 and 5.
func startPruned(t *testing.T) (s *servertest.Server, id int64) {
	t.Helper()
	s = servertest.Start(t, servertest.Parallel())
	created, err := s.GRPC().CreateUser(t.Context(), &userv1.CreateUserRequest{Username: "ann", Email: "ann@example.org"})
	if err != nil {
		t.Fatal(err)
	}
	id = created.GetUser().GetUserId()
	for range 4 {
		if _, err := s.GRPC().RecordUserActivity(t.Context(), &userv1.RecordUserActivityRequest{UserId: id, Action: "app.seen"}); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Store().Prune(t.Context(), 0, 3); err != nil || n != 3 {
		t.Fatalf("Prune() = %d, %v, want 3", n, err)
	}
	return s, id
}
