package rest

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

const (
	// lastEventID is the header that an EventSource sends on a reconnect. Polyfills use
	// lastEventParameter in the query.
	lastEventID        = "Last-Event-Id"
	lastEventParameter = "lastEventId"
	// endEvent is the id of an event after which a stream cannot be resumed.
	endEvent = "end"
)

// streamClients are in-process clients of the streaming RPCs.
type streamClients struct {
	activities *connect.Client[userv1.StreamUserActivitiesRequest, userv1.UserActivity]
	statuses   *connect.Client[userv1.WatchUserStatusRequest, userv1.UserStatusUpdate]
}

func newStreamClients(opts Options) streamClients {
	const host = "http://in-process"
	within := inProcess{opts: opts}
	plain := connect.WithAcceptCompression("gzip", nil, nil) // no compression in process
	return streamClients{
		activities: connect.NewClient[userv1.StreamUserActivitiesRequest, userv1.UserActivity](
			within, host+userv1connect.UserServiceStreamUserActivitiesProcedure, plain),
		statuses: connect.NewClient[userv1.WatchUserStatusRequest, userv1.UserStatusUpdate](
			within, host+userv1connect.UserServiceWatchUserStatusProcedure, plain),
	}
}

// openActivities returns a call of StreamUserActivities.
func (h *handler) openActivities(c *call, last lastEvent, format string) streamCall {
	req, _ := c.message.Interface().(*userv1.StreamUserActivitiesRequest)
	o := streamCall{progress: req.GetProgress()}
	if last.given {
		req.Since, req.FromHead = nil, false
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	// Progress rows update the id for resuming an event stream while it is idle, see formats.
	req.Progress = req.GetProgress() || format == typeEvents
	o.run = func(ctx context.Context, header http.Header, emit func(item) bool) {
		runStream(ctx, h.streams.activities, request(req, header), emit, activityItem)
	}
	return o
}

func activityItem(row *userv1.UserActivity) (item, error) {
	data, err := marshalJSON(nil, row)
	return item{
		kind: itemRow, data: data, position: row.GetActivityId(), progress: row.GetAction() == "",
	}, err
}

// openStatuses returns a call of WatchUserStatus.
func (h *handler) openStatuses(c *call, last lastEvent, _ string) streamCall {
	req, _ := c.message.Interface().(*userv1.WatchUserStatusRequest)
	if last.given {
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	o := streamCall{
		// A stream of all statuses starts at the head, before any event that has an id.
		// The RPC sends its start position in the header.
		anchored: req.GetAll() && req.GetAfterActivityId() == 0,
		progress: req.GetProgress(),
	}
	o.run = func(ctx context.Context, header http.Header, emit func(item) bool) {
		runStream(ctx, h.streams.statuses, request(req, header), emit, statusItem)
	}
	return o
}

func statusItem(update *userv1.UserStatusUpdate) (item, error) {
	data, err := marshalJSON(nil, update)
	return item{kind: itemRow, data: data, position: update.GetActivityId(), progress: update.GetProgress()}, err
}

// request returns a request with the given headers.
func request[T any](message *T, header http.Header) *connect.Request[T] {
	req := connect.NewRequest(message)
	for name, values := range header {
		req.Header()[name] = values
	}
	return req
}

// lastEvent is the position from which an event stream resumes.
type lastEvent struct {
	given    bool
	text     string // as received
	epoch    string
	position int64
}

// readLastEvent reads Last-Event-ID or the query parameter for clients that cannot set headers.
// The header takes precedence, because a reconnecting client repeats the URL. query is the
// query without the parameter.
func readLastEvent(r *http.Request) (last lastEvent, query string, violations []user.Violation) {
	name, text := "Last-Event-ID", r.Header.Get(lastEventID)
	query = r.URL.RawQuery
	if strings.Contains(query, lastEventParameter) {
		if values, err := url.ParseQuery(query); err == nil {
			if text == "" {
				name, text = lastEventParameter, values.Get(lastEventParameter)
			}
			values.Del(lastEventParameter)
			query = values.Encode()
		}
	}
	if text == "" {
		return last, query, nil
	}
	last = lastEvent{given: true, text: text}
	if text == endEvent {
		return last, query, nil
	}
	var ok bool
	if last.epoch, last.position, ok = user.ParsePosition(text); !ok {
		violations = []user.Violation{{Field: name, Message: "must be EPOCH:POSITION"}}
	}
	return last, query, violations
}
