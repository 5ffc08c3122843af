package service

import (
	"context"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/reqinfo"
	"github.com/yourorg/userservice/service/user"
)

// StreamUserActivities replays the log from a start point and continues live.
func (s *Service) StreamUserActivities(
	ctx context.Context, req *userv1.StreamUserActivitiesRequest, stream *connect.ServerStream[userv1.UserActivity],
) error {
	return s.ServeUserActivities(ctx, req, stream.Conn())
}

// ServeUserActivities is StreamUserActivities for any conn.
func (s *Service) ServeUserActivities(ctx context.Context, req *userv1.StreamUserActivitiesRequest, conn connect.StreamingHandlerConn) error {
	a, err := s.openActivities(ctx, req, conn)
	if err != nil {
		return err
	}
	defer a.close()
	err = a.run(ctx)
	return s.endError(ctx, err, a.sent)
}

// openActivities returns the stream of a request. The caller must close it.
func (s *Service) openActivities(
	ctx context.Context, req *userv1.StreamUserActivitiesRequest, conn connect.StreamingHandlerConn,
) (*activityStream, error) {
	head := s.feed.Head().Position
	s.setPositionOf(conn, head)
	opts, err := s.cursorOptions(ctx, req, head)
	if err != nil {
		return nil, err
	}
	cursor := s.feed.Cursor(opts)
	a := &activityStream{
		conn: conn, cursor: cursor, replayOnly: req.GetReplayOnly(), flush: flusher(ctx), memory: budget.FromContext(ctx),
		sent: cursor.Position(), reported: -1,
	}
	if req.GetProgress() {
		a.beat = time.NewTicker(s.opts.Heartbeat)
		a.ticks = a.beat.C
	}
	return a, nil
}

// cursorOptions determines the start point. It reads the user afterwards, so a deletion in
// between is either in the user or in the log.
func (s *Service) cursorOptions(ctx context.Context, req *userv1.StreamUserActivitiesRequest, head int64) (feed.CursorOptions, error) {
	opts := feed.CursorOptions{UserID: req.GetUserId(), Actions: req.GetActions()}
	if err := s.startPoint(ctx, req, head, &opts); err != nil {
		return opts, err
	}
	if opts.UserID != 0 {
		u, err := s.store.Get(ctx, opts.UserID)
		if err != nil {
			return opts, err
		}
		opts.Deleted = u.Deleted()
	}
	return opts, nil
}

func (s *Service) startPoint(ctx context.Context, req *userv1.StreamUserActivitiesRequest, head int64, opts *feed.CursorOptions) error {
	starts := 0
	for _, given := range []bool{req.GetSince() != nil, req.GetAfterActivityId() != 0, req.GetFromHead()} {
		if given {
			starts++
		}
	}
	if starts > 1 {
		return user.NewFieldErrorf("since", "at most one of since, after_activity_id and from_head may be given")
	}
	opts.After = req.GetAfterActivityId()
	if req.GetFromHead() || req.GetSince() != nil {
		opts.After = head
	}
	if err := s.feed.CheckPosition(ctx, req.GetEpoch(), opts.After); err != nil {
		return err
	}
	var err error
	if starts == 0 && req.GetEpoch() == "" {
		opts.After, opts.Oldest, err = s.before(ctx, time.Time{})
	} else if req.GetSince() != nil {
		if opts.Since, err = timeFromProto("since", req.GetSince()); err != nil {
			return err
		}
		if req.GetSince().GetNanos()%1000 != 0 {
			opts.Since = opts.Since.Add(time.Microsecond) // round up to the precision of the log
		}
		opts.After, opts.Oldest, err = s.before(ctx, opts.Since)
	}
	return err
}

// before returns the position of the last row before a time, and whether it is the one before the oldest
// retained row.
func (s *Service) before(ctx context.Context, t time.Time) (position int64, oldest bool, err error) {
	if position, err = s.store.Before(ctx, t); err != nil {
		return 0, false, err
	}
	first, err := s.store.First(ctx) // after Before, because rows may be pruned in between
	return position, position < first, err
}

// activityStream sends the rows of a cursor. Its state is here and not in variables of run, so a stream that waits has a small
// stack.
type activityStream struct {
	conn     connect.StreamingHandlerConn
	cursor   *feed.Cursor
	flush    reqinfo.FlushControl
	beat     *time.Ticker     // of progress rows; nil: not requested
	ticks    <-chan time.Time // of beat
	sent     int64            // every row up to this position was sent
	reported int64            // position of the last progress row; -1: none
	memory   *budget.Reservation

	replayOnly bool
	full       bool // memory for full pages is reserved
}

func (a *activityStream) close() {
	if a.beat != nil {
		a.beat.Stop()
	}
	a.cursor.Close()
}

func (a *activityStream) run(ctx context.Context) error {
	if err := a.conn.Send(nil); err != nil { // send the header
		return err
	}
	a.flush.Cork()
	for {
		if ended, err := a.catchUp(ctx); ended || err != nil {
			return err
		}
		a.flush.Uncork()
		err := a.cursor.Wait(ctx, a.ticks)
		a.flush.Cork()
		if err != nil {
			return err
		}
	}
}

// catchUp sends the rows up to the head. It reports whether no rows follow.
func (a *activityStream) catchUp(ctx context.Context) (ended bool, err error) {
	for {
		if err := a.cursor.Drained(); err != nil {
			return false, err
		}
		page, err := a.cursor.Read(ctx)
		if err != nil {
			return false, err
		}
		if err := a.send(ctx, page.Rows); err != nil {
			return false, err
		}
		a.sent = a.cursor.Position()
		a.adjustPageSize(!page.AtHead)
		if !page.AtHead {
			continue
		}
		if a.beat != nil && (a.reported < 0 || len(page.Rows) == 0) {
			if err := a.conn.Send(progressRow(a.sent)); err != nil {
				return false, err
			}
			a.reported = a.sent
		}
		return page.Ended || a.replayOnly, nil
	}
}

// adjustPageSize switches to full pages when the client has read a small one, more rows follow,
// and memory is available. A stream that stalls at its start, or is idle, takes little memory.
func (a *activityStream) adjustPageSize(more bool) {
	if a.full == more {
		return
	}
	if !more {
		a.memory.Shrink(budget.Response, feed.PageMemory)
	} else if a.memory.Grow(budget.Response, feed.PageMemory) != nil {
		return
	}
	a.full = more
	a.cursor.SetFullPages(more)
}

// send sends a page and prefetches the next one at its middle. A stalled stream holds one page.
func (a *activityStream) send(ctx context.Context, rows []user.Activity) error {
	message := newActivityMessage()
	for i := range rows {
		if i == len(rows)/2 {
			a.cursor.Prefetch(ctx)
		}
		message.set(&rows[i])
		if err := a.conn.Send(message); err != nil {
			return err
		}
		a.sent = rows[i].Position
	}
	return nil
}
