package rest

import (
	"context"
	"net/http"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// lastEventID is the header in which an EventSource says what it has.
const lastEventID = "Last-Event-Id"

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

// openActivities reads a request for StreamUserActivities.
func (h *handler) openActivities(r *http.Request, format string, values []string) (opened, []user.Violation) {
	req := &userv1.StreamUserActivitiesRequest{}
	message := req.ProtoReflect()
	userID := fieldNamed(message, "user_id")
	_, violations := readQuery(r.URL.RawQuery, message, userID)
	value, text, problem := parseScalar(userID, values[0])
	if problem == "" && text != values[0] {
		problem = "must be written plainly"
	}
	if problem != "" {
		violations = append(violations, user.Violation{Field: "user_id", Message: problem})
	} else {
		message.Set(userID, value)
	}
	o := opened{progress: req.GetProgress()}
	epoch, position, resumed, wrong := readLastEvent(r)
	if resumed {
		o.resumed = true
		req.Since, req.FromHead = nil, false
		req.AfterActivityId, req.Epoch = position, epoch
	}
	// An event stream always has progress underneath: it moves the place to resume
	// from on while no row comes, see formats.
	req.Progress = req.GetProgress() || format == typeEvents
	o.run = func(ctx context.Context, header http.Header, emit func(item) bool) {
		runStream(ctx, h.streams.activities, request(req, header), emit, activityItem)
	}
	return o, append(violations, wrong...)
}

func activityItem(row *userv1.UserActivity) (item, error) {
	panicIfPlanted("panic-in-rest")
	data, err := marshalJSON(nil, row)
	return item{
		kind: itemRow, data: data, position: row.GetActivityId(), progress: row.GetAction() == "",
	}, err
}

// openStatuses reads a request for WatchUserStatus.
func (h *handler) openStatuses(r *http.Request, _ string, _ []string) (opened, []user.Violation) {
	req := &userv1.WatchUserStatusRequest{}
	_, violations := readQuery(r.URL.RawQuery, req.ProtoReflect())
	o := opened{}
	epoch, position, resumed, wrong := readLastEvent(r)
	if resumed {
		o.resumed = true
		req.AfterActivityId, req.Epoch = position, epoch
	}
	// Everybody's statuses begin at the head, without any event that could be resumed
	// from; the RPC sets its position before it begins.
	o.anchored = req.GetAll() && req.GetAfterActivityId() == 0
	o.run = func(ctx context.Context, header http.Header, emit func(item) bool) {
		runStream(ctx, h.streams.statuses, request(req, header), emit, statusItem)
	}
	return o, append(violations, wrong...)
}

func statusItem(update *userv1.UserStatusUpdate) (item, error) {
	data, err := marshalJSON(nil, update)
	return item{kind: itemRow, data: data, position: update.GetActivityId()}, err
}

// request makes a request with the headers of the caller's.
func request[T any](message *T, header http.Header) *connect.Request[T] {
	req := connect.NewRequest(message)
	for name, values := range header {
		req.Header()[name] = values
	}
	return req
}

// readLastEvent reads the place to resume from, which is wherever the last event was.
func readLastEvent(r *http.Request) (epoch string, position int64, resumed bool, wrong []user.Violation) {
	text := r.Header.Get(lastEventID)
	if text == "" {
		return "", 0, false, nil
	}
	epoch, position, ok := parsePosition(text)
	if !ok {
		return "", 0, false, []user.Violation{{Field: "Last-Event-ID", Message: "must be EPOCH:POSITION"}}
	}
	return epoch, position, true, nil
}
