package service

import (
	"cmp"
	"context"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/pagetoken"
	"github.com/yourorg/userservice/service/user"
)

// maxScannedRows bounds the rows scanned for one page if the selected actions are rare.
const maxScannedRows = 10_000

// ListUserActivities returns a page of the log. Newest first, the list starts at the head as of
// the first page; later rows are not part of it.
func (s *Service) ListUserActivities(
	ctx context.Context, req *userv1.ListUserActivitiesRequest,
) (*userv1.ListUserActivitiesResponse, error) {
	query := user.LogQuery{
		UserID:     req.GetUserId(),
		Retained:   true,
		Desc:       req.GetOrder() != userv1.ActivityOrder_ACTIVITY_ORDER_OLDEST_FIRST,
		Actions:    req.GetActions(),
		MaxRows:    int(cmp.Or(req.GetPageSize(), user.DefaultPage)),
		MaxScanned: maxScannedRows,
	}
	if err := s.applyPageToken(&query, req); err != nil {
		return nil, err
	}
	if query.UserID != 0 {
		if _, err := s.store.Get(ctx, query.UserID); err != nil {
			return nil, err
		}
	}
	var err error
	if query.MaxBytes, err = reserveResponse(ctx, min(s.opts.MaxMessageBytes, query.MaxRows*maxRowBytes)); err != nil {
		return nil, err
	}
	page, err := s.store.Log(ctx, query)
	if err != nil {
		return nil, err
	}
	return s.activityPage(&page, req)
}

// applyPageToken continues the query after the previous page.
func (s *Service) applyPageToken(query *user.LogQuery, req *userv1.ListUserActivitiesRequest) error {
	if req.GetPageToken() == "" {
		return nil
	}
	var reached int64
	if err := pagetoken.Decode(req.GetPageToken(), &reached, s.listActivitiesQuery(req)...); err != nil {
		return err
	}
	if reached < 1 {
		return pagetoken.NewError()
	}
	if query.Desc {
		query.Before = reached
	} else {
		query.After, query.Retained = reached, false
	}
	return nil
}

// activityPage builds the response and moves rows that do not fit to the next page.
func (s *Service) activityPage(
	page *user.LogPage, req *userv1.ListUserActivitiesRequest,
) (*userv1.ListUserActivitiesResponse, error) {
	resp := &userv1.ListUserActivitiesResponse{}
	remaining := s.opts.MaxMessageBytes - pageHeadroom
	for i := range page.Rows {
		row := activityToProto(&page.Rows[i])
		remaining -= proto.Size(row) + rowOverhead
		if remaining < 0 && i > 0 {
			page.Done, page.Reached = false, page.Rows[i-1].Position
			break
		}
		resp.Activities = append(resp.Activities, row)
	}
	if page.Done {
		return resp, nil
	}
	var err error
	resp.NextPageToken, err = pagetoken.Encode(page.Reached, s.listActivitiesQuery(req)...)
	return resp, err
}

const (
	pageHeadroom = 4096 // for the token and the envelope
	rowOverhead  = 6    // tag and length of one row
	maxRowBytes  = 5 << 10
)

func (s *Service) listActivitiesQuery(req *userv1.ListUserActivitiesRequest) []string {
	return []string{
		userv1connect.UserServiceListUserActivitiesProcedure, s.feed.Head().Epoch, strconv.FormatInt(req.GetUserId(), 10),
		req.GetOrder().String(), strings.Join(req.GetActions(), "\x00"),
	}
}
