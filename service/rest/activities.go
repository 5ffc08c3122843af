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
	// lastEventID is the header in which an EventSource says what it has,
	// lastEventParameter the parameter by which polyfills do.
	lastEventID        = "Last-Event-Id"
	lastEventParameter = "lastEventId"
	// endEvent is the id of an event behind which there is nothing to resume.
	endEvent = "end"
)

// streamClients call the streams within the process.
type streamClients struct {
	activities *connect.Client[userv1.StreamUserActivitiesRequest, userv1.UserActivity]
	statuses   *connect.Client[userv1.WatchUserStatusRequest, userv1.UserStatusUpdate]
}

func newStreamClients(opts Options) streamClients {
	const host = "http://in-process"
	within := inProcess{opts: opts}
	plain := connect.WithAcceptCompression("gzip", nil, nil) // nothing is gained within memory
	return streamClients{
		activities: connect.NewClient[userv1.StreamUserActivitiesRequest, userv1.UserActivity](
			within, host+userv1connect.UserServiceStreamUserActivitiesProcedure, plain),
		statuses: connect.NewClient[userv1.WatchUserStatusRequest, userv1.UserStatusUpdate](
			within, host+userv1connect.UserServiceWatchUserStatusProcedure, plain),
	}
}

// openActivities prepares a call of StreamUserActivities.
func (h *handler) openActivities(c *call, last lastEvent, format string) opened {
	req, _ := c.message.Interface().(*userv1.StreamUserActivitiesRequest)
	o := opened{progress: req.GetProgress()}
	if last.given {
		req.Since, req.FromHead = nil, false
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	// An event stream always has progress underneath: it moves the place to resume
	// from on while no row comes, see formats.
	req.Progress = req.GetProgress() || format == typeEvents
	o.run = func(ctx context.Context, header http.Header, emit func(item) bool) {
		runStream(ctx, h.streams.activities, request(req, header), emit, activityItem)
	}
	return o
}

func activityItem(row *userv1.UserActivity) (item, error) {
	panicIfPlanted("panic-in-rest")
	data, err := marshalJSON(nil, row)
	return item{
		kind: itemRow, data: data, position: row.GetActivityId(), progress: row.GetAction() == "",
	}, err
}

// openStatuses prepares a call of WatchUserStatus.
func (h *handler) openStatuses(c *call, last lastEvent, _ string) opened {
	req, _ := c.message.Interface().(*userv1.WatchUserStatusRequest)
	if last.given {
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	o := opened{
		// Everybody's statuses begin at the head, without any event that could be resumed
		// from; the RPC sets its position before it begins.
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

// request makes a request with the headers of the caller's.
func request[T any](message *T, header http.Header) *connect.Request[T] {
	req := connect.NewRequest(message)
	for name, values := range header {
		req.Header()[name] = values
	}
	return req
}

// lastEvent is the last event that the caller of an event stream has, from which it
// resumes.
type lastEvent struct {
	given    bool
	text     string // as the caller has it
	epoch    string
	position int64
}

// readLastEvent reads the header by which an EventSource resumes, or the parameter of
// the query that stands for it where headers cannot be set. query is the rest of the
// query. The header wins: a client that sets it again and again keeps its first URL.
func readLastEvent(r *http.Request) (last lastEvent, query string, wrong []user.Violation) {
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
		wrong = []user.Violation{{Field: name, Message: "must be EPOCH:POSITION"}}
	}
	return last, query, wrong
}
