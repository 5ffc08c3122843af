package service

import (
	"context"
	"strconv"
	"strings"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/user"
)

// maxLooked bounds the users that one page looks at, so that a filter that few
// match costs no more than any other page. The page may then be short.
const maxLooked = 10_000

// ListUsers returns one page of users. Errors: INVALID_FIELD on filter, order_by or
// page_token.
func (s *Service) ListUsers(ctx context.Context, req *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	query, err := s.listQuery(req)
	if err != nil {
		return nil, err
	}
	// What the store counts is rough; the rest is room for what it leaves out.
	query.MaxBytes, err = reserveResponse(ctx, min(s.opts.MaxMessageBytes/4*3, query.MaxUsers*maxUserBytes))
	if err != nil {
		return nil, err
	}
	page, err := s.store.List(ctx, query.ListQuery)
	if err != nil {
		return nil, err
	}
	res := &userv1.ListUsersResponse{Users: make([]*userv1.User, len(page.Users))}
	for i, u := range page.Users {
		res.Users[i] = userToProto(u, 0)
	}
	if page.Next == nil || query.atMostOne {
		return res, nil
	}
	res.NextPageToken, err = encodePageToken(page.Next, listTokenQuery(req)...)
	return res, err
}

// listQuery is what the store is asked, and whether one user at most can answer.
type listQuery struct {
	user.ListQuery
	atMostOne bool
}

func (s *Service) listQuery(req *userv1.ListUsersRequest) (listQuery, error) {
	f, err := parseFilter(req.GetFilter())
	if err != nil {
		return listQuery{}, err
	}
	q := listQuery{ListQuery: user.ListQuery{
		ShowDeleted: req.GetShowDeleted(),
		Match:       f.match,
		MaxUsers:    pageSize(req.GetPageSize()),
		MaxScanned:  maxLooked,
	}}
	if q.Order, q.Desc, err = parseOrder(req.GetOrderBy(), f.bound); err != nil {
		return listQuery{}, err
	}
	q.atMostOne = f.bound.narrow(&q.ListQuery)
	if req.GetPageToken() == "" {
		return q, nil
	}
	q.After = new(user.ListCursor)
	err = decodePageToken(req.GetPageToken(), q.After, listTokenQuery(req)...)
	return q, err
}

// listTokenQuery is what must stay the same from page to page.
func listTokenQuery(req *userv1.ListUsersRequest) []string {
	return []string{"ListUsers", req.GetFilter(), req.GetOrderBy(), strconv.FormatBool(req.GetShowDeleted())}
}

func pageSize(asked int32) int {
	if asked <= 0 {
		return user.DefaultPage
	}
	return min(int(asked), user.MaxPage)
}

// parseOrder reads order_by. Without one the order is that of the filter's bound,
// so that the bound can be used, or by id.
func parseOrder(orderBy string, b bound) (order user.Order, desc bool, err error) {
	words := strings.Fields(orderBy)
	if len(words) == 0 {
		return b.order, false, nil
	}
	order, known := map[string]user.Order{
		"user_id": user.ByID, fieldUsername: user.ByUsername, fieldEmail: user.ByEmail, fieldUpdatedAt: user.ByUpdated,
	}[protoName(words[0])]
	direction := "asc"
	if len(words) > 1 {
		direction = words[1]
	}
	if !known || len(words) > 2 || direction != "asc" && direction != "desc" {
		return 0, false, user.NewFieldErrorf("order_by",
			`must be one of user_id, username, email and updated_at, with " desc" or " asc" behind it or nothing`)
	}
	return order, direction == "desc", nil
}
