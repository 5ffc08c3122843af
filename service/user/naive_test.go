package user_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// request is a change as a client asks for it. Decide gets its op; the naive rules read the request.
type request struct {
	kind      string
	set       []string // fields of an update
	values    user.User
	entries   map[string]*string
	etag      string
	at        time.Time
	retention time.Duration
	now       bool
	details   map[string]string
}

func (q *request) op() user.Op {
	switch q.kind {
	case "create":
		return &user.Create{ID: 7, Values: q.values}
	case "update":
		return &user.Update{ID: 7, Etag: q.etag, Patch: user.Patch{Values: q.values, Set: user.NewFieldSet(q.set...), Entries: q.entries}}
	case "status":
		return &user.SetStatus{ID: 7, Status: q.values.Status, Time: q.at}
	case "delete":
		return &user.Delete{ID: 7, Etag: q.etag, Retention: q.retention}
	case "undelete":
		return &user.Undelete{ID: 7, Etag: q.etag}
	case "start purge":
		return &user.StartPurge{ID: 7, Etag: q.etag, Now: q.now}
	case "purge":
		return &user.Purge{ID: 7}
	case "record":
		return &user.Record{ID: 7, Action: "login", Details: q.details}
	}
	return &user.ReadBarrier{ID: 7}
}

// naive has the rules of changes a second time, without the table of fields and the helpers of the domain: the
// stores and their reference model all call Decide, so a fault in it would be in all of them.
type naive struct {
	stamp user.CommitStamp
	next  *user.User // nil: no user
	rows  []user.Activity
}

// fail returns why a change that requires a user that is not deleted fails.
func (n *naive) fail(q *request) user.Reason {
	switch {
	case n.next == nil:
		return user.UserNotFound
	case !n.next.DeletedAt.IsZero():
		return user.UserDeleted
	case q.etag != "" && q.etag != n.next.Etag():
		return user.EtagMismatch
	}
	return ""
}

// row adds a row and returns its position. A pair of texts is a changed value before and after.
func (n *naive) row(action string, details map[string]string, changed map[string][2]string) int64 {
	all := map[string]string{"actor": "alice", "request_id": "r1"}
	maps.Copy(all, details)
	for name, pair := range changed {
		if pair[0] == pair[1] {
			continue
		}
		if pair[0] != "" {
			all["old."+name] = pair[0]
		}
		if pair[1] != "" {
			all["new."+name] = pair[1]
		}
	}
	position := n.stamp.NextPosition + int64(len(n.rows))
	n.rows = append(n.rows, user.Activity{Position: position, UserID: 7, Action: action, Time: n.stamp.LogTime, Details: all})
	return position
}

// changed makes the change a new version.
func (n *naive) changed(position int64) {
	n.next.Version++
	n.next.UpdatedAt, n.next.LastActivityID = n.stamp.LogTime, position
}

func tagsText(tags []string) string {
	if len(tags) == 0 {
		return ""
	}
	text, _ := json.Marshal(tags)
	return string(text)
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

// profile returns the values of the profile, by the names of log details.
func profile(u *user.User) map[string]string {
	texts := map[string]string{"username": u.Username, "email": u.Email, "tags": tagsText(u.Tags)}
	for key, value := range u.Metadata {
		texts["metadata."+key] = value
	}
	return texts
}

func pairs(before, after map[string]string) map[string][2]string {
	all := map[string][2]string{}
	for name, text := range before {
		all[name] = [2]string{text, after[name]}
	}
	for name, text := range after {
		all[name] = [2]string{before[name], text}
	}
	return all
}

// apply changes n as the request asks, and returns the reason of a failure.
func (n *naive) apply(q *request) user.Reason {
	switch q.kind {
	case "create":
		n.create(q)
	case "update":
		return n.update(q)
	case "status":
		return n.status(q)
	case "delete":
		if reason := n.fail(q); reason != "" {
			return reason
		}
		n.next.DeletedAt, n.next.PurgeAt = n.stamp.LogTime, n.stamp.Clock.Add(q.retention).Truncate(time.Microsecond)
		n.next.StatusPosition = n.row("user.deleted", nil, map[string][2]string{
			"deleted_at": {"", timeText(n.next.DeletedAt)}, "purge_at": {"", timeText(n.next.PurgeAt)},
		})
		n.changed(n.next.StatusPosition)
	case "undelete":
		return n.undelete(q)
	case "start purge":
		switch {
		case n.next == nil:
			return user.UserNotFound
		case n.next.DeletedAt.IsZero(), !q.now && n.stamp.Earliest.Before(n.next.PurgeAt):
			return user.UserNotDeleted
		case q.etag != "" && q.etag != n.next.Etag():
			return user.EtagMismatch
		}
		n.next.PurgeAt = time.UnixMicro(1).UTC()
	case "purge":
		switch {
		case n.next == nil:
			return user.UserNotFound
		case n.next.DeletedAt.IsZero(), n.stamp.Earliest.Before(n.next.PurgeAt):
			return user.UserNotDeleted
		}
		n.row("user.purged", nil, nil)
		n.next = nil
	case "record":
		if reason := n.fail(&request{}); reason != "" {
			return reason
		}
		n.row("login", q.details, nil)
	default:
		return n.fail(&request{})
	}
	return ""
}

func (n *naive) create(q *request) {
	n.next = &user.User{
		ID: 7, Username: q.values.Username, Email: q.values.Email, Tags: q.values.Tags, Metadata: q.values.Metadata,
		Status: user.StatusActive, StatusTime: n.stamp.Clock, StatusPosition: n.stamp.NextPosition,
		CreatedAt: n.stamp.LogTime, UpdatedAt: n.stamp.LogTime, Version: 1, LastActivityID: n.stamp.NextPosition,
	}
	values := pairs(nil, profile(n.next))
	values["status"] = [2]string{"", "USER_STATUS_ACTIVE"}
	n.row("user.created", nil, values)
}

func (n *naive) update(q *request) user.Reason {
	if reason := n.fail(q); reason != "" {
		return reason
	}
	before := profile(n.next)
	withStatus := false
	for _, name := range q.set {
		switch name {
		case "username":
			n.next.Username = q.values.Username
		case "email":
			n.next.Email = q.values.Email
		case "tags":
			n.next.Tags = q.values.Tags
		case "metadata":
			n.next.Metadata = maps.Clone(q.values.Metadata)
		case "status":
			withStatus = true
		}
	}
	for key, value := range q.entries {
		if value == nil {
			delete(n.next.Metadata, key)
			continue
		}
		if n.next.Metadata == nil {
			n.next.Metadata = map[string]string{}
		}
		n.next.Metadata[key] = *value
	}
	if len(n.next.Metadata) > 64 {
		return user.InvalidField
	}
	if after := profile(n.next); !maps.Equal(before, after) {
		n.changed(n.row("user.updated", nil, pairs(before, after)))
		n.next.Version-- // one version for both rows
	}
	if withStatus {
		at := n.stamp.Clock
		if t := n.statusTime(); t.After(at) {
			at = t
		}
		n.setStatus(q.values.Status, at)
	}
	if len(n.rows) > 0 {
		n.changed(n.rows[len(n.rows)-1].Position)
	}
	return ""
}

// statusTime returns the time of the status, or none if it is more than a minute ahead of the clock.
func (n *naive) statusTime() time.Time {
	if n.next.StatusTime.After(n.stamp.Clock.Add(time.Minute)) {
		return time.Time{}
	}
	return n.next.StatusTime
}

func (n *naive) setStatus(status user.Status, at time.Time) {
	n.next.StatusTime = at
	if status != n.next.Status {
		n.next.StatusPosition = n.row("user.status_changed", nil, map[string][2]string{"status": {n.next.Status.String(), status.String()}})
		n.next.Status = status
	}
}

func (n *naive) status(q *request) user.Reason {
	if q.at.After(n.stamp.Clock.Add(time.Minute)) {
		return user.InvalidField
	}
	if reason := n.fail(&request{}); reason != "" {
		return reason
	}
	at := q.at
	if q.at.IsZero() {
		at = n.stamp.Clock
		if n.statusTime().After(at) {
			at = n.statusTime()
		}
	}
	if at.Before(n.statusTime()) {
		return ""
	}
	if n.setStatus(q.values.Status, at); len(n.rows) > 0 {
		n.changed(n.rows[0].Position)
	}
	return ""
}

func (n *naive) undelete(q *request) user.Reason {
	switch u := n.next; {
	case u == nil:
		return user.UserNotFound
	case u.DeletedAt.IsZero():
		return user.UserNotDeleted
	case !n.stamp.Earliest.Before(u.PurgeAt):
		return user.UserNotFound
	case q.etag != "" && q.etag != u.Etag():
		return user.EtagMismatch
	}
	times := map[string][2]string{"deleted_at": {timeText(n.next.DeletedAt), ""}, "purge_at": {timeText(n.next.PurgeAt), ""}}
	n.next.DeletedAt, n.next.PurgeAt = time.Time{}, time.Time{}
	n.next.StatusPosition = n.row("user.undeleted", nil, times)
	n.changed(n.next.StatusPosition)
	return ""
}

// drawRequest draws a request for the current user.
func drawRequest(r *rapid.T, cur *user.User, clock time.Time) *request {
	kinds := []string{"update", "update", "update", "update", "status", "status", "status", "delete", "undelete", "start purge", "purge", "record", "read"}
	if cur == nil {
		kinds = append(kinds, "create", "create", "create", "create", "create", "create")
	}
	text := rapid.SampledFrom([]string{"a", "b", "c"})
	values := user.User{
		Username: text.Draw(r, "username"), Email: text.Draw(r, "email"), Status: user.Status(rapid.IntRange(1, 3).Draw(r, "status")),
		Tags: rapid.SampledFrom([][]string{nil, {"a"}, {"a", "b"}}).Draw(r, "tags"), Metadata: rapid.MapOfN(text, text, 0, 3).Draw(r, "metadata"),
	}
	if rapid.IntRange(0, 9).Draw(r, "large") == 0 {
		for i := range 64 {
			values.Metadata[fmt.Sprint(i)] = "v" // more than the limit together with another entry
		}
		for _, key := range []string{"a", "b", "c"} {
			delete(values.Metadata, key)
		}
	}
	q := &request{
		kind: rapid.SampledFrom(kinds).Draw(r, "kind"), values: values,
		set: rapid.SliceOfDistinct(rapid.SampledFrom([]string{"username", "email", "tags", "metadata", "status"}), rapid.ID).Draw(r, "set"),
		entries: rapid.MapOfN(text, rapid.Map(text, func(s string) *string {
			if s == "c" {
				return nil
			}
			return &s
		}), 0, 2).Draw(r, "entries"),
		retention: rapid.SampledFrom([]time.Duration{0, time.Minute, time.Hour + time.Nanosecond}).Draw(r, "retention"),
		now:       rapid.Bool().Draw(r, "now"), details: map[string]string{"k": text.Draw(r, "detail")},
	}
	if rapid.Bool().Draw(r, "at") {
		q.at = clock.Add(rapid.SampledFrom([]time.Duration{-time.Hour, 0, time.Second, 30 * time.Second, time.Minute, time.Minute + time.Microsecond}).Draw(r, "offset"))
	}
	switch rapid.IntRange(0, 4).Draw(r, "etag") {
	case 0:
		q.etag = "other"
	case 1:
		if cur != nil {
			q.etag = cur.Etag()
		}
	}
	return q
}

// Decide and the naive rules agree on random changes of one user, with a clock that may go back.
func TestDecideAgreesWithNaiveRules(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		var cur *user.User
		clock, position := start, int64(1)
		logTime := clock
		for range rapid.IntRange(1, 30).Draw(r, "steps") {
			clock = clock.Add(rapid.SampledFrom([]time.Duration{0, 0, time.Microsecond, time.Second, -time.Second, time.Hour, -30 * time.Minute}).Draw(r, "advance"))
			if clock.After(logTime) {
				logTime = clock
			}
			stamp := user.CommitStamp{
				LogTime: logTime, Clock: clock, NextPosition: position,
				Earliest: clock.Add(-rapid.SampledFrom([]time.Duration{0, time.Minute}).Draw(r, "uncertainty")),
			}
			q := drawRequest(r, cur, clock)
			want := &naive{stamp: stamp}
			if cur != nil {
				want.next = cur.Clone()
			}
			reason := want.apply(q)
			d, err := q.op().Decide(cur, stamp, by)
			if failure, _ := user.AsError(err); (err == nil) != (reason == "") || failure != nil && failure.Reason != reason {
				r.Fatalf("Decide(%s) error = %v, want %q", q.kind, err, reason)
			}
			if err != nil {
				continue
			}
			empty := cmpopts.EquateEmpty()
			if diff := cmp.Diff(want.next, d.User, empty); diff != "" {
				r.Fatalf("Decide(%s) user (-want +got):\n%s", q.kind, diff)
			}
			if diff := cmp.Diff(want.rows, d.Rows, empty); diff != "" {
				r.Fatalf("Decide(%s) rows (-want +got):\n%s", q.kind, diff)
			}
			if store := !cmp.Equal(cur, want.next, empty); d.Store != store {
				r.Fatalf("Decide(%s) Store = %t, want %t", q.kind, d.Store, store)
			}
			cur, position = d.User, position+int64(len(d.Rows))
		}
	})
}
