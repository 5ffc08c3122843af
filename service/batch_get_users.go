package service

import (
	"context"
	"slices"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/batch"
	"github.com/yourorg/userservice/service/fieldmask"
	"github.com/yourorg/userservice/service/user"
)

// maxIDBytes is the maximum encoded size of an id in a packed list.
const maxIDBytes = 10

// BatchGetUsers returns the users that exist, in the order of the request, and the ids that do
// not. It returns the ids of users beyond MaxMessageBytes (binary encoding) as left over. At
// least one user is returned.
func (s *Service) BatchGetUsers(ctx context.Context, req *userv1.BatchGetUsersRequest) (*userv1.BatchGetUsersResponse, error) {
	fields, err := fieldmask.Select(req.GetFields())
	if err != nil {
		return nil, err
	}
	ids := req.GetUserIds()
	size, err := reserveResponse(ctx, min(s.opts.MaxMessageBytes, len(ids)*user.MaxUserSize()+batch.Envelope))
	if err != nil {
		return nil, err
	}
	res := &userv1.BatchGetUsersResponse{}
	packer := userPacker{left: size - batch.Envelope - maxIDBytes*len(ids)}
	for chunk := range slices.Chunk(ids, max(1, size/user.MaxUserSize())) {
		if len(res.GetLeftOverUserIds()) > 0 { // the limit is reached
			res.LeftOverUserIds = append(res.LeftOverUserIds, chunk...)
			continue
		}
		found, err := s.store.GetMany(ctx, chunk)
		if err != nil {
			return nil, err
		}
		packer.add(res, chunk, found, fields)
	}
	return res, nil
}

// userPacker adds users to a response within a size limit.
type userPacker struct{ left int }

func (p *userPacker) add(res *userv1.BatchGetUsersResponse, ids []int64, found []*user.User, fields user.FieldSet) {
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
		if p.left -= batch.EmbeddedSize(out); p.left < 0 && len(res.GetUsers()) > 0 {
			res.LeftOverUserIds = append(res.LeftOverUserIds, id)
			continue
		}
		res.Users = append(res.Users, out)
	}
}
