package rest_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/rest"
	"github.com/yourorg/userservice/service/user"
)

const activitiesPath = "/api/v1/users/7/activities"

func TestEventStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &feed{replay: []int64{3, 5}, progress: 9, live: make(chan int64)}
		c := dial(t, newHandler(t, &fake{stream: source.serve}), sse(activitiesPath))
		status, _ := c.got()
		if status != 200 || c.header.Get("Content-Type") != "text/event-stream" || c.header.Get("Cache-Control") != "no-store" ||
			c.header.Get("X-Accel-Buffering") != "no" || c.header.Get("Vary") != "Accept" || c.header.Get("Userd-Position") != "ep:och:99" {
			t.Fatalf("got %d %v", status, c.header)
		}
		for _, name := range []string{"Content-Encoding", "Connect-Accept-Encoding", "Accept-Encoding", "Content-Length"} {
			if c.header.Get(name) != "" {
				t.Errorf("%s: got %q", name, c.header.Get(name))
			}
		}
		s := c.events(t)
		if len(s.events) != 2 || s.lastID != "ep:9" || len(s.retry) != 1 || s.comments != 0 {
			t.Fatalf("stream = %+v", s)
		}
		got := &userv1.UserActivity{}
		if err := protojson.Unmarshal([]byte(s.events[1].data), got); err != nil || !proto.Equal(got, activity(5)) {
			t.Errorf("%v: got %s", err, s.events[1].data)
		}
		if e := s.events[1]; e.id != "ep:5" || e.name != "message" {
			t.Errorf("got %+v", e)
		}
		source.live <- 12
		synctest.Wait()
		if s := c.events(t); len(s.events) != 3 || s.lastID != "ep:12" {
			t.Errorf("stream = %+v", s)
		}
		c.leave()
		if !c.ended() {
			t.Error("the handler has not returned after the client disconnected")
		}
	})
}

func TestHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &feed{live: make(chan int64)}
		c := dial(t, newHandler(t, &fake{stream: source.serve}), sse(activitiesPath))
		expect := func(after time.Duration, comments int) {
			t.Helper()
			time.Sleep(after) // bubble time
			synctest.Wait()
			if s := c.events(t); s.comments != comments {
				t.Errorf("%d comments, expected %d", s.comments, comments)
			}
		}
		if status, _ := c.got(); status != 200 {
			t.Fatal("the header does not come at once")
		}
		expect(15*time.Second-1, 0)
		expect(1, 1)
		expect(15*time.Second, 2)
		expect(10*time.Second, 2)
		source.live <- 1 // a row resets the timer
		expect(10*time.Second, 2)
		expect(5*time.Second, 3)
		c.leave()
		c.ended()
	})
}

// The header is sent with the first heartbeat at the latest.
func TestSilentHandler(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{stream: func(ctx context.Context, _ *userv1.StreamUserActivitiesRequest, _ *activities) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		c := dial(t, newHandler(t, f, func(o *rest.Options) { o.Heartbeat = time.Second }), sse(activitiesPath))
		if status, _ := c.got(); status != 0 {
			t.Errorf("status %d before the first heartbeat", status)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if status, _ := c.got(); status != 200 || c.events(t).comments != 1 {
			t.Errorf("got %d", status)
		}
		c.leave()
		c.ended()
	})
}

func TestProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for query, want := range map[string]int{"": 1, "?progress=false": 1, "?progress=true": 3} {
			source := &feed{replay: []int64{3}, progress: 9, live: make(chan int64)}
			f := &fake{stream: source.serve}
			c := dial(t, newHandler(t, f), sse(activitiesPath+query))
			source.live <- -11
			synctest.Wait()
			s := c.events(t)
			if len(s.events) != want || s.lastID != "ep:11" {
				t.Errorf("%q: got %+v", query, s)
			}
			if want == 3 && s.events[1].id != "ep:9" {
				t.Errorf("stream = %+v", s)
			}
			c.leave()
			c.ended()
		}
	})
}

func TestStreamRequests(t *testing.T) {
	since := timestamppb.New(time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC))
	for name, test := range map[string]struct {
		request

		want proto.Message
	}{
		"all parameters": {
			ndjson(activitiesPath + "?since=2026-01-02T05:04:05.6%2B02:00&actions=a&actions=b,c&replay_only=true&epoch=e&progress=true"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, Since: since, Actions: []string{"a", "b", "c"}, ReplayOnly: true, Epoch: "e", Progress: true},
		},
		"in JSON's names": {
			ndjson("/api/v1/users/0/activities?afterActivityId=4&replayOnly=false&fromHead=true"),
			&userv1.StreamUserActivitiesRequest{AfterActivityId: 4, FromHead: true},
		},
		"a plus as it is": {
			ndjson(activitiesPath + "?since=2026-01-02T05:04:05.6+02:00"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, Since: since},
		},
		"resumed": {
			sse(activitiesPath+"?since=2026-01-02T03:04:05.6Z&after_activity_id=4&epoch=old&from_head=true&actions=a", "Last-Event-ID", "e:p:17"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, AfterActivityId: 17, Epoch: "e:p", Actions: []string{"a"}, Progress: true},
		},
		"resumed by a parameter": {
			sse(activitiesPath + "?actions=a&lastEventId=e:p:17"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, AfterActivityId: 17, Epoch: "e:p", Actions: []string{"a"}, Progress: true},
		},
		"a header before a parameter": {
			sse(activitiesPath+"?lastEventId=e:p:17", "Last-Event-ID", "e:18"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, AfterActivityId: 18, Epoch: "e", Progress: true},
		},
		"an empty parameter": {
			sse(activitiesPath + "?lastEventId=&after_activity_id=3"),
			&userv1.StreamUserActivitiesRequest{UserId: 7, AfterActivityId: 3, Progress: true},
		},
		"statuses by POST, resumed": {
			request{method: "POST", path: "/api/v1/users:watchStatus", body: `{"userIds":["1"],"afterActivityId":"4"}`, header: map[string]string{"Last-Event-ID": "e:17"}},
			&userv1.WatchUserStatusRequest{UserIds: []int64{1}, AfterActivityId: 17, Epoch: "e"},
		},
		"statuses": {
			sse("/api/v1/users:watchStatus?user_ids=1,2&userIds=3&after_activity_id=4&epoch=e"), nil,
		},
		"statuses of some": {
			sse("/api/v1/users:watchStatus?user_ids=1,2&user_ids=3&after_activity_id=4&epoch=e"),
			&userv1.WatchUserStatusRequest{UserIds: []int64{1, 2, 3}, AfterActivityId: 4, Epoch: "e"},
		},
		"statuses, resumed": {
			sse("/api/v1/users:watchStatus?all=true&after_activity_id=4", "Last-Event-ID", "e:17"),
			&userv1.WatchUserStatusRequest{All: true, AfterActivityId: 17, Epoch: "e"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			w := serve(t, newHandler(t, f), test.request)
			received := f.receivedMessages()
			if test.want == nil {
				if w.Code != http.StatusBadRequest || len(received) > 0 {
					t.Errorf("got %d, %v", w.Code, received)
				}
				return
			}
			if len(received) != 1 || !proto.Equal(received[0], test.want) {
				t.Errorf("%d %s, handler received %v", w.Code, w.Body, received)
			}
		})
	}
}

// Only a resumed stream without further rows is 204.
func TestEndOfStream(t *testing.T) {
	for name, test := range map[string]struct {
		feed   feed
		query  string
		resume bool
		format string
		status int
		events int
		lastID string
	}{
		"over at once":                       {feed{}, "", true, "text/event-stream", 204, 0, ""},
		"caught up at once":                  {feed{progress: 9}, "?replay_only=true", true, "text/event-stream", 204, 0, ""},
		"caught up, progress is asked for":   {feed{progress: 9}, "?replay_only=true&progress=true", true, "text/event-stream", 204, 0, ""},
		"there is more":                      {feed{replay: []int64{5}, progress: 9}, "", true, "text/event-stream", 200, 1, "ep:9"},
		"not resumed":                        {feed{}, "", false, "text/event-stream", 200, 0, ""},
		"not resumed, with a place to go on": {feed{progress: 9}, "", false, "text/event-stream", 200, 0, "ep:9"},
		"lines":                              {feed{}, "", true, "application/x-ndjson", 200, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			q := sse(activitiesPath+test.query, "Accept", test.format)
			if test.resume {
				q.header["Last-Event-ID"] = "ep:4"
			}
			w := serve(t, newHandler(t, &fake{stream: test.feed.serve}), q)
			if w.Code != test.status {
				t.Fatalf("response = %d %s", w.Code, w.Body)
			}
			if w.Header().Get("Userd-Position") == "" {
				t.Error("no position header")
			}
			if test.format != "text/event-stream" || test.status == http.StatusNoContent {
				if w.Body.Len() > 0 {
					t.Errorf("got %q", w.Body)
				}
				return
			}
			s, err := parseEvents(w.Body.String())
			if err != nil || len(s.events) != test.events || s.lastID != test.lastID {
				t.Errorf("stream = %+v, error %v", s, err)
			}
		})
	}
}

func TestErrorBeforeTheFirstRow(t *testing.T) {
	for _, accept := range []string{"text/event-stream", "application/x-ndjson"} {
		for _, test := range []struct {
			err    *user.Error
			status int
			retry  string
		}{
			{user.NewNotFoundError(7), 404, ""},
			{user.NewDrainingError("e", 4), 503, "1"},
		} {
			f := &fake{stream: (&feed{err: test.err, progress: 9}).serve}
			w := serve(t, newHandler(t, f), sse(activitiesPath, "Accept", accept))
			p := readProblem(t, w.Body.Bytes())
			if w.Code != test.status || p.reason != string(test.err.Reason) || w.Header().Get("Retry-After") != test.retry ||
				w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("got %d %+v %v", w.Code, p, w.Header())
			}
			for key, value := range test.err.Metadata {
				if p.meta[key] != value {
					t.Errorf("%s: got %q", key, p.meta[key])
				}
			}
		}
	}
}

// An EventSource cannot read an error response and would reconnect indefinitely. It gets an error
// event,
// and 204 on the reconnect.
func TestEventSourceThatCannotResume(t *testing.T) {
	for name, test := range map[string]struct {
		err   error
		query string
		last  string
		final bool
	}{
		"position out of range":      {user.NewPositionOutOfRangeError("e", 1, 2, "ahead"), "", "ep:4", true},
		"position of the query":      {user.NewPositionOutOfRangeError("e", 1, 2, "ahead"), "?after_activity_id=4", "", true},
		"position in lastEventId":    {user.NewPositionOutOfRangeError("e", 1, 2, "ahead"), "?lastEventId=ep%3A4", "", true},
		"no position":                {nil, "", "12", true},
		"no position in lastEventId": {nil, "?lastEventId=12", "", true},
		"user not found":             {user.NewNotFoundError(7), "", "ep:4", true},
		"draining server":            {user.NewDrainingError("ep", 4), "", "ep:4", false},
		"unavailable store":          {user.NewStoreUnavailableError(), "", "ep:4", false},
	} {
		t.Run(name, func(t *testing.T) {
			q := sse(activitiesPath + test.query)
			if test.last != "" {
				q.header["Last-Event-ID"] = test.last
			}
			h := newHandler(t, &fake{stream: (&feed{err: test.err}).serve})
			w := serve(t, h, q)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != "text/event-stream" || w.Header().Get("X-Accel-Buffering") != "no" {
				t.Fatalf("got %d %v", w.Code, w.Header())
			}
			s, err := parseEvents(w.Body.String())
			if err != nil || len(s.events) != 1 || s.events[0].name != "error" || (s.lastID == "end") != test.final {
				t.Fatalf("stream = %+v, error %v", s, err)
			}
			if p := readProblem(t, []byte(s.events[0].data)); p.reason == "" {
				t.Errorf("error = %+v", p)
			}
			if !test.final {
				return
			}
			for _, back := range []request{sse(activitiesPath, "Last-Event-ID", s.lastID), sse(activitiesPath + "?lastEventId=" + s.lastID)} {
				if again := serve(t, h, back); again.Code != http.StatusNoContent || again.Body.Len() > 0 {
					t.Errorf("reconnect: %d %q", again.Code, again.Body)
				}
			}
		})
	}
}

func TestStreamError(t *testing.T) {
	source := feed{replay: []int64{3}, err: user.NewDrainingError("ep", 3)}
	w := serve(t, newHandler(t, &fake{stream: source.serve}), sse(activitiesPath))
	s, err := parseEvents(w.Body.String())
	if err != nil || len(s.events) != 2 || s.events[1].name != "error" || s.lastID != "ep:3" {
		t.Fatalf("stream = %+v, error %v", s, err)
	}
	if p := readProblem(t, []byte(s.events[1].data)); p.reason != string(user.ServerDraining) || p.meta["position"] != "3" {
		t.Errorf("error = %+v", p)
	}
	if len(s.retry) != 2 || s.retry[1] != 1000 {
		t.Errorf("got %v", s.retry)
	}

	w = serve(t, newHandler(t, &fake{stream: source.serve}), ndjson(activitiesPath))
	lines := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
	last, found := strings.CutPrefix(lines[len(lines)-1], `{"error":`)
	if len(lines) != 2 || !found {
		t.Fatalf("got %q", lines)
	}
	if p := readProblem(t, []byte(strings.TrimSuffix(last, "}"))); p.reason != string(user.ServerDraining) {
		t.Errorf("error = %+v", p)
	}
}

func TestNDJSON(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		source := &feed{replay: []int64{3, 5}, progress: 9, live: make(chan int64)}
		c := dial(t, newHandler(t, &fake{stream: source.serve}), ndjson(activitiesPath))
		source.live <- 6
		time.Sleep(31 * time.Second) // two heartbeats
		synctest.Wait()
		status, text := c.got()
		if status != 200 || c.header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("got %d %v", status, c.header)
		}
		lines := strings.Split(text, "\n")
		if len(lines) != 6 || strings.Join(lines[3:], "") != "" {
			t.Fatalf("%q, want three rows and two empty lines", text)
		}
		for i, position := range []int64{3, 5, 6} {
			got := &userv1.UserActivity{}
			if err := protojson.Unmarshal([]byte(lines[i]), got); err != nil || !proto.Equal(got, activity(position)) {
				t.Errorf("%v: got %s", err, lines[i])
			}
		}
		c.leave()
		c.ended()
	})
}

func TestStatuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		updates := make(chan *userv1.UserStatusUpdate)
		f := &fake{watch: func(ctx context.Context, _ *userv1.WatchUserStatusRequest, stream *connect.ServerStream[userv1.UserStatusUpdate]) error {
			stream.ResponseHeader().Set("Userd-Position", "ep:40")
			for {
				select {
				case update := <-updates:
					if err := stream.Send(update); err != nil {
						return err
					}
				case <-ctx.Done():
					return ctx.Err()
				default:
					if err := stream.Send(nil); err != nil {
						return err
					}
					reqinfo.From[reqinfo.FlushControl](ctx).Uncork()
					select {
					case update := <-updates:
						if err := stream.Send(update); err != nil {
							return err
						}
					case <-ctx.Done():
						return ctx.Err()
					}
				}
			}
		}}
		for query, before := range map[string]string{"?all=true": "ep:40", "?user_ids=7": "", "?all=true&after_activity_id=3": ""} {
			c := dial(t, newHandler(t, f), request{method: "GET", path: "/api/v1/users:watchStatus" + query})
			if s := c.events(t); s.lastID != before || len(s.events) > 0 || len(s.retry) != 1 {
				t.Errorf("%s: got %+v", query, s)
			}
			update := &userv1.UserStatusUpdate{UserId: 7, Status: userv1.UserStatus_USER_STATUS_INACTIVE, ActivityId: 41, Epoch: "ep"}
			updates <- update
			synctest.Wait()
			s := c.events(t)
			if s.lastID != "ep:41" || len(s.events) != 1 {
				t.Fatalf("stream = %+v", s)
			}
			got := &userv1.UserStatusUpdate{}
			if err := protojson.Unmarshal([]byte(s.events[0].data), got); err != nil || !proto.Equal(got, update) {
				t.Errorf("%v: got %s", err, s.events[0].data)
			}
			c.leave()
			c.ended()
		}
	})
}
