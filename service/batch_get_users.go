package service

import (
	"context"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
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
	room, err := reserveResponse(ctx, min(s.opts.MaxMessageBytes, len(ids)*maxUserBytes+answerEnvelope))
	if err != nil {
		return nil, err
	}
	res := &userv1.BatchGetUsersResponse{}
	fits := responseRoom{left: room - answerEnvelope - maxIDBytes*len(ids)}
	for chunk := range slices.Chunk(ids, max(1, room/maxUserBytes)) {
		if len(res.GetLeftOverUserIds()) > 0 { // what comes after it is not read
			res.LeftOverUserIds = append(res.LeftOverUserIds, chunk...)
			continue
		}
		found, err := s.store.GetMany(ctx, chunk)
		if err != nil {
			return nil, err
		}
		fits.add(res, chunk, found, fields)
	}
	return res, nil
}

// responseRoom is what the users of a response may still take.
type responseRoom struct{ left int }

// add adds the users that fit, and names the others.
func (r *responseRoom) add(res *userv1.BatchGetUsersResponse, ids []int64, found []*user.User, fields fieldSet) {
	for _, id := range ids {
		if len(found) == 0 || found[0].ID != id {
			res.MissingUserIds = append(res.MissingUserIds, id)
			continue
		}
		u := found[0]
		found = found[1:]
		if len(res.GetLeftOverUserIds()) > 0 {
			res.LeftOverUserIds = append(res.LeftOverUserIds, id)
			continue
		}
		out := userToProto(u, fields)
		if r.left -= embeddedSize(out); r.left < 0 && len(res.GetUsers()) > 0 {
			res.LeftOverUserIds = append(res.LeftOverUserIds, id)
			continue
		}
		res.Users = append(res.Users, out)
	}
}

// embeddedSize is what a message takes as an element of a list with a field number
// below 16.
func embeddedSize(m proto.Message) int {
	return 1 + protowire.SizeBytes(proto.Size(m))
}
