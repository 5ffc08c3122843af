package service

import (
	"context"
	"math"
	"strconv"
	"strings"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/filter"
	"github.com/yourorg/userservice/service/pagetoken"
	"github.com/yourorg/userservice/service/user"
)

// maxScanned bounds the users scanned for one page. A selective filter may therefore return
// short pages.
const maxScanned = 10_000

// ListUsers returns a page of users. Errors: INVALID_FIELD on filter, order_by or page_token.
func (s *Service) ListUsers(ctx context.Context, req *userv1.ListUsersRequest) (*userv1.ListUsersResponse, error) {
	query, err := s.listQuery(ctx, req)
	if err != nil {
		return nil, err
	}
	// The store measures approximate sizes; a quarter of the message is a reserve.
	query.MaxBytes, err = reserveResponse(ctx, min(s.opts.MaxMessageBytes/4*3, query.MaxUsers*user.MaxUserSize()))
	if err != nil {
		return nil, err
	}
	page, err := s.store.List(ctx, query.ListQuery)
	if err != nil {
		return nil, err
	}
	res := &userv1.ListUsersResponse{Users: make([]*userv1.User, len(page.Users))}
	for i, u := range page.Users {
		res.Users[i] = userToProto(u, user.APIFields())
	}
	if req.GetCount() {
		if err := s.count(ctx, query, res); err != nil {
			return nil, err
		}
	}
	if page.Next == nil || query.atMostOne {
		return res, nil
	}
	res.NextPageToken, err = pagetoken.Encode(page.Next, s.listTokenQuery(req)...)
	return res, err
}

// count sets the total size of a response.
func (s *Service) count(ctx context.Context, query listQuery, res *userv1.ListUsersResponse) error {
	if query.atMostOne {
		res.TotalSize = int32(len(res.GetUsers())) //nolint:gosec,nolintlint // at most 1
		return nil
	}
	total, err := s.store.Count(ctx, query.ListQuery)
	res.TotalSize, res.TotalSizeEstimated = int32(min(total.Users, math.MaxInt32)), total.Estimated //nolint:gosec,nolintlint // in range
	return err
}

// listQuery is a store query. atMostOne reports that at most one user can match.
type listQuery struct {
	user.ListQuery
	atMostOne bool
}

func (s *Service) listQuery(ctx context.Context, req *userv1.ListUsersRequest) (listQuery, error) {
	f, err := filter.Parse(req.GetFilter())
	if err != nil {
		return listQuery{}, err
	}
	q := listQuery{ListQuery: user.ListQuery{
		ShowDeleted: req.GetShowDeleted(),
		Match:       f.Match,
		MaxUsers:    pageSize(req.GetPageSize()),
		MaxScanned:  maxScanned,
	}}
	if q.Order, q.Desc, err = parseOrder(req.GetOrderBy(), f.Order()); err != nil {
		return listQuery{}, err
	}
	q.atMostOne = f.Narrow(&q.ListQuery)
	if err := s.narrowTimes(ctx, f.Updated(), &q.ListQuery); err != nil {
		return listQuery{}, err
	}
	if req.GetPageToken() == "" {
		return q, nil
	}
	q.After = new(user.ListCursor)
	err = pagetoken.Decode(req.GetPageToken(), q.After, s.listTokenQuery(req)...)
	if err == nil && !q.After.Fits(q.Order) {
		err = pagetoken.NewError()
	}
	return q, err
}

// narrowTimes restricts the last activity to the positions of a range of times. Log times do not decrease.
// Positions of rows that are no longer retained are unknown and restrict nothing.
func (s *Service) narrowTimes(ctx context.Context, times user.TimeRange, q *user.ListQuery) error {
	if times == (user.TimeRange{}) {
		return nil
	}
	if !times.From.IsZero() {
		before, oldest, err := s.before(ctx, times.From)
		if err != nil {
			return err
		}
		if !oldest {
			q.AfterActivity = max(q.AfterActivity, before)
		}
	}
	if !times.Until.IsZero() {
		before, err := s.store.Before(ctx, times.Until)
		if err != nil {
			return err
		}
		if end := before + 1; q.BeforeActivity == 0 || end < q.BeforeActivity {
			q.BeforeActivity = end
		}
	}
	return nil
}

// listTokenQuery returns what a page token is bound to. A restored store has other users at the positions of the log.
func (s *Service) listTokenQuery(req *userv1.ListUsersRequest) []string {
	return []string{"ListUsers", s.feed.Head().Epoch, req.GetFilter(), req.GetOrderBy(), strconv.FormatBool(req.GetShowDeleted())}
}

func pageSize(requested int32) int {
	if requested <= 0 {
		return user.DefaultPage
	}
	return min(int(requested), user.MaxPage)
}

// parseOrder parses order_by. The default is that of the filter.
func parseOrder(orderBy string, byDefault user.Order) (order user.Order, desc bool, err error) {
	words := strings.Fields(orderBy)
	if len(words) == 0 {
		return byDefault, false, nil
	}
	field := words[0]
	if f := user.FindField(field); f != nil {
		field = f.Name
	}
	order, known := map[string]user.Order{
		"user_id": user.ByID, "username": user.ByUsername, "email": user.ByEmail, "updated_at": user.ByLastActivity, "last_activity_id": user.ByLastActivity,
		"created_at": user.ByCreated,
	}[field]
	direction := "asc"
	if len(words) > 1 {
		direction = words[1]
	}
	if !known || len(words) > 2 || direction != "asc" && direction != "desc" {
		return 0, false, user.NewFieldErrorf("order_by",
			`must be user_id, username, email, created_at, updated_at or last_activity_id, optionally followed by " asc" or " desc"`)
	}
	return order, direction == "desc", nil
}
