package service

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

const (
	// maxIDBytes is the most that an id takes in a packed list.
	maxIDBytes = 10
	// answerEnvelope is set aside for what surrounds the items of an answer.
	answerEnvelope = 1024
)

// BatchGetUsers returns the users that there are, in the order of the request, and
// names those that are missing. Users that would make the answer larger than
// MaxMessageBytes in the binary encoding are named as left over; at least one
// is always returned.
func (s *Service) BatchGetUsers(ctx context.Context, req *userv1.BatchGetUsersRequest) (*userv1.BatchGetUsersResponse, error) {
	fields, err := parseFields(req.GetFields())
	if err != nil {
		return nil, err
	}
	ids := req.GetUserIds()
	found, err := s.store.GetMany(ctx, ids)
	if err != nil {
		return nil, err
	}
	res := &userv1.BatchGetUsersResponse{Users: make([]*userv1.User, 0, len(found))}
	room := s.opts.MaxMessageBytes - answerEnvelope - maxIDBytes*len(ids)
	for _, id := range ids {
		if len(found) == 0 || found[0].ID != id {
			res.MissingUserIds = append(res.MissingUserIds, id)
			continue
		}
		u := found[0]
		found = found[1:]
		if len(res.LeftOverUserIds) > 0 {
			res.LeftOverUserIds = append(res.LeftOverUserIds, id)
			continue
		}
		out := userToProto(u, fields)
		if room -= embeddedSize(out); room < 0 && len(res.Users) > 0 {
			res.LeftOverUserIds = append(res.LeftOverUserIds, id)
			continue
		}
		res.Users = append(res.Users, out)
	}
	return res, nil
}

// embeddedSize is what a message takes as an element of a list with a field number
// below 16.
func embeddedSize(m proto.Message) int {
	return 1 + protowire.SizeBytes(proto.Size(m))
}
