package service

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// sharedChange is a message that the streams with the same fields share. Each codec encodes it once: it implements
// codec.Shared. It must not be modified.
type sharedChange struct {
	*userv1.WatchUsersResponse

	fields user.FieldSet
	shared *feed.Shared
}

// encodingKey is the key of an encoding. The key of a message is its fields.
type encodingKey struct {
	fields user.FieldSet
	codec  string
}

// messageBytes is the size of a message without lists, maps and texts, which it shares with its user.
const messageBytes = 1 << 10

func changeToProto(c *feed.UserChange, fields user.FieldSet) *userv1.WatchUsersResponse {
	m := &userv1.WatchUsersResponse{UserId: c.UserID, ActivityId: c.Position, Removed: c.User == nil}
	if c.User != nil {
		m.User = userToProto(c.User, fields)
	}
	return m
}

// newSharedChange returns the message for a change with selected fields.
func newSharedChange(c *feed.UserChange, fields user.FieldSet) (*sharedChange, error) {
	m, err := c.Shared.Value(fields, func() (any, int, error) {
		return &sharedChange{changeToProto(c, fields), fields, c.Shared}, messageBytes, nil
	})
	if err != nil {
		return nil, err
	}
	shared, ok := m.(*sharedChange)
	if !ok {
		return nil, fmt.Errorf("shared message is a %T", m)
	}
	return shared, nil
}

// Encoding returns the encoding of a codec, which encode makes if there is none.
func (m *sharedChange) Encoding(codec string, encode func(proto.Message) ([]byte, error)) ([]byte, error) {
	data, err := m.shared.Value(encodingKey{m.fields, codec}, func() (any, int, error) {
		data, err := encode(m.WatchUsersResponse)
		return data, cap(data), err
	})
	bytes, _ := data.([]byte)
	return bytes, err
}
