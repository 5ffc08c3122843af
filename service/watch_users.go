package service

import (
	"context"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/fieldmask"
	"github.com/yourorg/userservice/service/filter"
	"github.com/yourorg/userservice/service/user"
)

// WatchUsers streams the users that match a filter, then their changes. Errors: INVALID_FIELD on
// filter or fields, POSITION_OUT_OF_RANGE.
func (s *Service) WatchUsers(
	ctx context.Context, req *userv1.WatchUsersRequest, stream *connect.ServerStream[userv1.WatchUsersResponse],
) error {
	match, err := filter.Parse(req.GetFilter())
	if err != nil {
		return err
	}
	fields, err := fieldmask.Select(req.GetFields())
	if err != nil {
		return err
	}
	if err := s.feed.CheckPosition(ctx, req.GetEpoch(), req.GetAfterActivityId()); err != nil {
		return err
	}
	s.setPositionOf(stream.Conn(), s.feed.Head().Position)
	cursor := s.feed.UserCursor(feed.UserCursorOptions{
		After: req.GetAfterActivityId(), ShowDeleted: req.GetShowDeleted(), Match: match.Match, Where: match.Condition(),
	})
	defer cursor.Close()
	if err := stream.Send(nil); err != nil { // send the header
		return err
	}
	w := userWatch{
		cursor: cursor, fields: fields, stream: stream, flush: flusher(ctx), memory: budget.FromContext(ctx),
		epoch: s.feed.Head().Epoch, sent: cursor.Position(),
	}
	if req.GetProgress() {
		// Checked twice per interval, so that the silence between two messages is at most one.
		w.silence = s.opts.Heartbeat / 2
		beat := time.NewTicker(w.silence)
		defer beat.Stop()
		w.ticks = beat.C
	}
	err = w.run(ctx)
	return s.endError(ctx, err, w.sent)
}

// userWatch sends the changes of a cursor.
type userWatch struct {
	cursor *feed.UserCursor
	fields user.FieldSet
	stream *connect.ServerStream[userv1.WatchUsersResponse]
	flush  reqinfo.FlushControl
	memory *budget.Reservation
	ticks  <-chan time.Time // nil: progress not requested
	epoch  string

	silence time.Duration // time without a message after which progress is sent
	last    time.Time     // of the last message; zero: none
	sent    int64         // every change up to this position was sent
	synced  bool
	behind  bool // the last page did not reach the head
}

func (w *userWatch) run(ctx context.Context) error {
	w.flush.Cork()
	for {
		if err := w.cursor.Drained(); err != nil {
			return err
		}
		atHead, err := w.sendPage(ctx)
		if err != nil {
			return err
		}
		if err := w.report(atHead); err != nil {
			return err
		}
		if !atHead {
			continue
		}
		w.flush.Uncork()
		if err := w.cursor.Wait(ctx, w.ticks); err != nil {
			return err
		}
		w.flush.Cork()
	}
}

// sendPage reads and sends the next page. A stream that is behind reads full pages while memory is
// available, which is reserved before the read; the base cost of a stream covers small pages. Then
// the size of the page is reserved until it is sent.
func (w *userWatch) sendPage(ctx context.Context) (atHead bool, err error) {
	reserved := int64(0)
	if full := feed.UserPageMemory(); w.behind && w.memory.Grow(budget.Response, full) == nil {
		reserved = full
	}
	defer func() { w.memory.Shrink(budget.Response, reserved) }()
	w.cursor.SetFullPages(reserved > 0)
	page, err := w.cursor.Read(ctx)
	if err != nil {
		return false, err
	}
	size := responseCopies * page.Size()
	if size > reserved && w.memory.Grow(budget.Response, size-reserved) != nil {
		return false, user.NewOverloadedError()
	}
	w.memory.Shrink(budget.Response, reserved-size)
	reserved = size
	for i := range page.Changes {
		if err := w.sendChange(&page.Changes[i]); err != nil {
			return false, err
		}
		w.sent = page.Changes[i].Position
	}
	w.sent = w.cursor.Position()
	w.behind = !page.AtHead
	return page.AtHead, nil
}

// sendChange sends a change. Only the first message of a stream is not shared, because it has the epoch.
func (w *userWatch) sendChange(c *feed.UserChange) error {
	if c.Shared == nil || w.last.IsZero() {
		return w.send(changeToProto(c, w.fields))
	}
	m, err := newSharedChange(c, w.fields)
	if err != nil {
		return err
	}
	w.last = time.Now()
	return w.stream.Conn().Send(m)
}

// report sends the synced message and progress that are due.
func (w *userWatch) report(atHead bool) error {
	synced := atHead && !w.synced
	w.synced = w.synced || synced
	progress := !synced && w.ticks != nil && time.Since(w.last) >= w.silence
	if !synced && !progress {
		return nil
	}
	return w.send(&userv1.WatchUsersResponse{Synced: synced, Progress: progress, ActivityId: w.sent, Epoch: w.epoch})
}

func (w *userWatch) send(m *userv1.WatchUsersResponse) error {
	if w.last.IsZero() {
		m.Epoch = w.epoch
	}
	w.last = time.Now()
	return w.stream.Send(m)
}
