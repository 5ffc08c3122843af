package rest_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/servertest"
	"github.com/yourorg/userservice/service/user"
)

// curl sends a request to a server and returns the response, with its body unless it is a stream.
type curl struct {
	t      *testing.T
	server *servertest.Server
	http2  bool
}

type reply struct {
	status int
	header http.Header
	body   []byte
}

func (c curl) send(q request) *http.Response {
	c.t.Helper()
	r, err := http.NewRequestWithContext(c.t.Context(), q.method, c.server.URL()+q.path, strings.NewReader(q.body))
	if err != nil {
		c.t.Fatal(err)
	}
	if q.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	for name, value := range q.header {
		r.Header.Set(name, value)
	}
	res, err := c.server.HTTP(c.http2).Do(r)
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

func (c curl) do(q request) reply {
	c.t.Helper()
	res := c.send(q)
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, body}
}

// want sends a request and decodes the response.
func (c curl) want(q request, into proto.Message) reply {
	c.t.Helper()
	got := c.do(q)
	if got.status != http.StatusOK {
		c.t.Fatalf("%s %s: got %d %s", q.method, q.path, got.status, got.body)
	}
	if err := protojson.Unmarshal(got.body, into); err != nil {
		c.t.Fatalf("%v: got %s", err, got.body)
	}
	return got
}

// The life cycle of a user.
func TestWholeServer(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			c := curl{t, servertest.Start(t), http2}
			created := &userv1.CreateUserResponse{}
			res := c.want(request{method: "POST", path: "/api/v1/users", body: `{"username":"Ann","email":"ann@example.com","metadata":{"a_b":"1","someKey":"2"}}`}, created)
			if res.header.Get("Userd-Position") == "" {
				t.Error("no position header")
			}
			path := fmt.Sprintf("/api/v1/users/%d", created.GetUser().GetUserId())
			got := &userv1.GetUserResponse{}
			etag := c.want(request{method: "GET", path: path}, got).header.Get("Etag")
			if etag != `"`+got.GetUser().GetEtag()+`"` {
				t.Fatalf("ETag %s of %v", etag, got)
			}
			if again := c.do(request{method: "GET", path: path, header: map[string]string{"If-None-Match": etag}}); again.status != http.StatusNotModified || len(again.body) > 0 {
				t.Errorf("got %d %s", again.status, again.body)
			}
			updated := &userv1.UpdateUserResponse{}
			patch := request{
				method: "PATCH", path: path + "?updateMask=email,metadata.a_b,metadata.someKey",
				body: `{"email":"b@example.com","metadata":{"a_b":"3"}}`, header: map[string]string{"If-Match": etag},
			}
			c.want(patch, updated)
			if u := updated.GetUser(); u.GetEmail() != "b@example.com" || fmt.Sprint(u.GetMetadata()) != "map[a_b:3]" {
				t.Errorf("got %v", u)
			}
			again := c.do(patch)
			if p := readProblem(t, again.body); again.status != http.StatusPreconditionFailed || p.reason != string(user.EtagMismatch) || p.meta["changed_fields"] == "" {
				t.Errorf("got %d %s", again.status, again.body)
			}
			if bad := c.do(request{method: "GET", path: path + "?fields=nope"}); bad.status != http.StatusBadRequest || len(readProblem(t, bad.body).fields) != 1 {
				t.Errorf("got %d %s", bad.status, bad.body)
			}
			c.want(request{method: "PUT", path: path + "/status", body: `{"status":"USER_STATUS_SUSPENDED"}`}, &userv1.UpdateUserStatusResponse{})
			c.want(request{method: "POST", path: path + "/activities", body: `{"action":"app.login"}`}, &userv1.RecordUserActivityResponse{})
			listed := &userv1.ListUserActivitiesResponse{}
			c.want(request{method: "GET", path: path + "/activities?order=ACTIVITY_ORDER_OLDEST_FIRST"}, listed)
			streamed := c.lines(path + "/activities?replay_only=true")
			if len(streamed) != len(listed.GetActivities()) {
				t.Fatalf("%d listed, %d streamed", len(listed.GetActivities()), len(streamed))
			}
			for i, row := range listed.GetActivities() {
				if !proto.Equal(row, streamed[i]) {
					t.Errorf("%v, but %v", row, streamed[i])
				}
			}
			c.want(request{method: "DELETE", path: path}, &userv1.DeleteUserResponse{})
			c.want(request{method: "POST", path: path + ":undelete"}, &userv1.UndeleteUserResponse{})
			c.want(request{method: "DELETE", path: path}, &userv1.DeleteUserResponse{})
			c.want(request{method: "POST", path: path + ":purge"}, &userv1.PurgeUserResponse{})
			if missing := c.do(request{method: "GET", path: "/api/v1/users/1"}); missing.status != http.StatusNotFound || readProblem(t, missing.body).reason != string(user.UserNotFound) {
				t.Errorf("got %d %s", missing.status, missing.body)
			}
		})
	}
}

func (c curl) lines(path string) []*userv1.UserActivity {
	c.t.Helper()
	got := c.do(ndjson(path))
	if got.status != http.StatusOK {
		c.t.Fatalf("got %d %s", got.status, got.body)
	}
	var rows []*userv1.UserActivity
	for line := range bytes.Lines(got.body) {
		row := &userv1.UserActivity{}
		if err := protojson.Unmarshal(line, row); err != nil {
			c.t.Fatalf("%v: got %s", err, line)
		}
		rows = append(rows, row)
	}
	return rows
}

// reader reads a live event stream.
type reader struct {
	t     *testing.T
	lines *bufio.Scanner
	close func()
	text  strings.Builder
}

func (c curl) open(q request) *reader {
	c.t.Helper()
	res := c.send(q) //nolint:bodyclose // the reader's close does it
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("%s: got %d", q.path, res.StatusCode)
	}
	return &reader{t: c.t, lines: bufio.NewScanner(res.Body), close: func() { _ = res.Body.Close() }}
}

// until reads until enough returns true.
func (r *reader) until(enough func(*sseStream) bool) *sseStream {
	r.t.Helper()
	for r.lines.Scan() {
		r.text.WriteString(r.lines.Text() + "\n")
		if r.lines.Text() != "" {
			continue
		}
		s, err := parseEvents(r.text.String())
		if err != nil {
			r.t.Fatal(err)
		}
		if enough(s) {
			return s
		}
	}
	r.t.Fatalf("the stream ended: %v after %q", r.lines.Err(), r.text.String())
	return nil
}

// Live events, a resume without gap or duplicate, and 204 after the user was deleted.
func TestWholeServerStreams(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			c := curl{t, servertest.Start(t), http2}
			created := &userv1.CreateUserResponse{}
			c.want(request{method: "POST", path: "/api/v1/users", body: `{"username":"Ann","email":"ann@example.com"}`}, created)
			id := created.GetUser().GetUserId()
			path := fmt.Sprintf("/api/v1/users/%d", id)
			status := func(value string) {
				c.want(request{method: "PUT", path: path + "/status", body: `{"status":"` + value + `"}`}, &userv1.UpdateUserStatusResponse{})
			}

			statuses := c.open(request{method: "GET", path: fmt.Sprintf("/api/v1/users:watchStatus?user_ids=%d", id)})
			statuses.until(func(s *sseStream) bool { return len(s.events) == 1 })
			everybody := c.open(request{method: "GET", path: "/api/v1/users:watchStatus?all=true"})
			everybody.until(func(s *sseStream) bool { return s.lastID != "" })
			live := c.open(sse(path + "/activities?from_head=true"))
			before := live.until(func(s *sseStream) bool { return s.lastID != "" }) // before the first row
			live.close()

			status("USER_STATUS_SUSPENDED")
			for _, r := range []*reader{statuses, everybody} {
				s := r.until(func(s *sseStream) bool {
					return len(s.events) > 0 && strings.Contains(s.events[len(s.events)-1].data, "SUSPENDED")
				})
				if s.lastID == "" {
					t.Errorf("stream = %+v", s)
				}
				r.close()
			}

			live = c.open(sse(path+"/activities?from_head=true", "Last-Event-ID", before.lastID))
			missed := live.until(func(s *sseStream) bool { return len(s.events) == 1 })
			contains(t, missed.events[0].data, user.ActionStatusChanged)
			c.want(request{method: "DELETE", path: path}, &userv1.DeleteUserResponse{})
			last := live.until(func(s *sseStream) bool { return len(s.events) == 2 })
			contains(t, last.events[1].data, user.ActionDeleted)
			for live.lines.Scan() { // until the server ends the stream
				live.text.WriteString(live.lines.Text() + "\n")
			}
			live.close()
			ended, err := parseEvents(live.text.String())
			if err != nil || len(ended.events) != 2 {
				t.Errorf("got %v %+v", err, ended)
			}
			if deleted := c.do(sse(path+"/activities", "Last-Event-ID", ended.lastID)); deleted.status != http.StatusNoContent {
				t.Errorf("got %d %s", deleted.status, deleted.body)
			}
			ahead := c.do(ndjson(path + "/activities?after_activity_id=1000"))
			if p := readProblem(t, ahead.body); ahead.status != http.StatusBadRequest || p.reason != string(user.PositionOutOfRange) || p.meta["last_position"] == "" {
				t.Errorf("got %d %s", ahead.status, ahead.body)
			}
		})
	}
}

// A stream ends with an error event when the server drains.
func TestWholeServerDrains(t *testing.T) {
	c := curl{t, servertest.Start(t), true}
	live := c.open(sse("/api/v1/users/0/activities"))
	live.until(func(s *sseStream) bool { return len(s.retry) == 1 })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		c.server.Stop()
	}()
	s := live.until(func(s *sseStream) bool { return len(s.events) > 0 })
	live.close()
	<-stopped
	if s.events[0].name != "error" || !json.Valid([]byte(s.events[0].data)) {
		t.Fatalf("stream = %+v", s)
	}
	if p := readProblem(t, []byte(s.events[0].data)); p.reason != string(user.ServerDraining) {
		t.Errorf("error = %+v", p)
	}
}
