package rest

import (
	"net/http"
	"net/url"
	"strings"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
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

// openActivities prepares a call of StreamUserActivities.
func openActivities(c *call, last lastEvent, format string) streamOptions {
	req, _ := c.message.Interface().(*userv1.StreamUserActivitiesRequest)
	o := streamOptions{progress: req.GetProgress(), describe: describeActivity}
	if last.given {
		req.Since, req.FromHead = nil, false
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	// Progress rows update the id for resuming an event stream while it is idle, see formats.
	req.Progress = req.GetProgress() || format == typeEvents
	return o
}

func describeActivity(message proto.Message) (position int64, progress bool) {
	row, _ := message.(*userv1.UserActivity)
	return row.GetActivityId(), row.GetAction() == ""
}

// openStatuses prepares a call of WatchUserStatus.
func openStatuses(c *call, last lastEvent, _ string) streamOptions {
	req, _ := c.message.Interface().(*userv1.WatchUserStatusRequest)
	if last.given {
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	return streamOptions{
		// A stream of all statuses starts at the head, before any event that has an id.
		// The RPC sends its start position in the header.
		anchored: req.GetAll() && req.GetAfterActivityId() == 0,
		progress: req.GetProgress(),
		describe: describeStatus,
	}
}

func describeStatus(message proto.Message) (position int64, progress bool) {
	update, _ := message.(*userv1.UserStatusUpdate)
	return update.GetActivityId(), update.GetProgress()
}

// openUsers prepares a call of WatchUsers. Each of its positions can be resumed.
func openUsers(c *call, last lastEvent, format string) streamOptions {
	req, _ := c.message.Interface().(*userv1.WatchUsersRequest)
	o := streamOptions{progress: req.GetProgress(), describe: describeUsers}
	if last.given {
		req.AfterActivityId, req.Epoch = last.position, last.epoch
	}
	req.Progress = req.GetProgress() || format == typeEvents
	return o
}

func describeUsers(message proto.Message) (position int64, progress bool) {
	m, _ := message.(*userv1.WatchUsersResponse)
	return m.GetActivityId(), m.GetProgress()
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
