package service

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// activityMessage is the message for a log row. A stream uses one for all rows of a page. It implements codec.Appender, because
// generated code encodes maps by reflection, which takes longer than the rest of a replay.
type activityMessage struct {
	*userv1.UserActivity

	time timestamppb.Timestamp
}

func newActivityMessage() *activityMessage {
	return &activityMessage{UserActivity: new(userv1.UserActivity)}
}

// set sets the row. The message shares its details.
func (m *activityMessage) set(row *user.Activity) {
	m.ActivityId, m.UserId, m.Action, m.Details = row.Position, row.UserID, row.Action, row.Details
	m.Timestamp = nil
	if !row.Time.IsZero() {
		m.Timestamp, m.time.Seconds, m.time.Nanos = &m.time, row.Time.Unix(), int32(row.Time.Nanosecond())
	}
}

// AppendProto appends the protobuf encoding.
func (m *activityMessage) AppendProto(b []byte) []byte {
	b = appendInt(b, 1, m.ActivityId)
	b = appendInt(b, 2, m.UserId)
	if m.Action != "" {
		b = appendText(b, 3, m.Action)
	}
	if m.Timestamp != nil {
		b = protowire.AppendTag(b, 4, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(sizeInt(1, m.time.Seconds)+sizeInt(2, int64(m.time.Nanos))))
		b = appendInt(b, 1, m.time.Seconds)
		b = appendInt(b, 2, int64(m.time.Nanos))
	}
	for key, value := range m.Details {
		b = protowire.AppendTag(b, 5, protowire.BytesType)
		b = protowire.AppendVarint(b, uint64(2*protowire.SizeTag(1)+protowire.SizeBytes(len(key))+protowire.SizeBytes(len(value))))
		b = appendText(b, 1, key)
		b = appendText(b, 2, value)
	}
	return b
}

func appendInt(b []byte, field protowire.Number, value int64) []byte {
	if value == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), uint64(value))
}

func sizeInt(field protowire.Number, value int64) int {
	if value == 0 {
		return 0
	}
	return protowire.SizeTag(field) + protowire.SizeVarint(uint64(value))
}

func appendText(b []byte, field protowire.Number, value string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), value)
}
