package service

import (
	"cmp"
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// WatchUserStatus follows the statuses of users. Whatever it sends comes in the
// order of positions, so that a caller who resumes after the last one misses
// nothing.
func (s *Service) WatchUserStatus(
	ctx context.Context, req *userv1.WatchUserStatusRequest, stream *connect.ServerStream[userv1.UserStatusUpdate],
) error {
	if req.GetAll() == (len(req.GetUserIds()) > 0) {
		return user.NewFieldErrorf("user_ids", "either user_ids or all must be given, and not both")
	}
	after := req.GetAfterActivityId()
	if err := s.feed.CheckPosition(ctx, req.GetEpoch(), after); err != nil {
		return err
	}
	s.answerReflects(ctx, s.feed.Head().Position)
	subscription := s.feed.Subscribe(0)
	defer subscription.Close()
	if err := stream.Send(nil); err != nil { // the header: the stream stands
		return err
	}
	w := statusWriter{service: s, subscription: subscription, send: stream.Send, flush: flusher(ctx)}
	w.flush.Hold()
	if req.GetProgress() {
		w.askProgress()
		defer w.beat.Stop()
	}
	if req.GetAll() {
		subscription.SubscribeAll(cmp.Or(after, s.feed.Head().Position))
	} else if err := w.begin(ctx, req.GetUserIds(), after); err != nil {
		return err
	}
	for {
		if err := w.atHand(len(subscription.Wake()) > 0); err != nil {
			return err
		}
		select {
		case <-subscription.Wake():
			w.flush.Hold()
			if err := w.changes(ctx); err != nil {
				return err
			}
		case <-w.ticks():
			w.due = true
		case <-s.feed.Draining():
			return subscription.Drained()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

const (
	// followBytes is what a followed user takes in the maps of its stream and of the feed.
	followBytes = 320
	// startFollowBytes is what it takes beside that while the present statuses are read.
	startFollowBytes = 384
)

// statusWriter sends status changes of followed users.
type statusWriter struct {
	service      *Service
	subscription *feed.Subscription
	send         func(*userv1.UserStatusUpdate) error
	flush        FlushControl
	beat         *time.Ticker // of progress messages; nil: none were asked for
	due          bool         // a progress message is to be sent as soon as nothing is at hand
}

// askProgress sends a progress message when the stream has caught up, and then again
// and again.
func (w *statusWriter) askProgress() {
	w.due = true
	if w.beat == nil {
		w.beat = time.NewTicker(w.service.opts.Heartbeat)
	}
}

// ticks has a value when a progress message is due.
func (w *statusWriter) ticks() <-chan time.Time {
	if w.beat == nil {
		return nil
	}
	return w.beat.C
}

// atHand comes before each wait. Unless more is at hand, it sends the progress message
// that is due, and flushes.
func (w *statusWriter) atHand(more bool) error {
	if more {
		return nil
	}
	if w.due {
		w.due = false
		told := w.subscription.DeliveredThrough()
		if err := w.send(w.service.statusProgress(told)); err != nil {
			return w.service.unsent(err, told)
		}
	}
	w.flush.Release()
	return nil
}

// begin follows the users and sends what the caller does not know yet: their
// present statuses, or those that have changed since a position.
func (w *statusWriter) begin(ctx context.Context, ids []int64, after int64) error {
	memory := budget.FromContext(ctx)
	starts := int64(len(ids)) * startFollowBytes
	if memory.Grow(budget.Subscription, int64(len(ids))*followBytes+starts) != nil {
		return user.NewOverloadedError()
	}
	defer memory.Shrink(budget.Subscription, starts)
	for _, id := range ids {
		if _, err := w.subscription.Pause(id); err != nil {
			return err
		}
	}
	head := w.service.feed.Head().Position
	changes, err := w.service.feed.Statuses(ctx, ids, after)
	if err != nil {
		return err
	}
	// What was committed during the reading comes live, after all that is older.
	changes = slices.DeleteFunc(changes, func(c feed.StatusChange) bool { return c.Position > head })
	slices.SortFunc(changes, func(a, b feed.StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	known := make(map[int64]int64, len(changes))
	for i := range changes {
		if err := w.change(&changes[i]); err != nil {
			return err
		}
		known[changes[i].UserID] = changes[i].Position
	}
	for _, id := range ids {
		w.subscription.Resume(id, known[id])
	}
	w.removeGone(changes)
	return nil
}

// changes sends what there is to tell.
func (w *statusWriter) changes(ctx context.Context) error {
	changes, err := w.subscription.Poll(ctx)
	if err != nil {
		return err
	}
	for i := range changes {
		if err := w.change(&changes[i]); err != nil {
			return err
		}
	}
	w.removeGone(changes)
	return nil
}

// change sends a change. All changes before it were sent, but for those that Told has.
func (w *statusWriter) change(change *feed.StatusChange) error {
	return w.before(change.Position, w.send(w.service.statusChange(change)))
}

// before gives the error of a message that has a change at the position, and was not sent.
func (w *statusWriter) before(position int64, err error) error {
	if err == nil {
		return nil
	}
	return w.service.unsent(err, min(w.subscription.DeliveredThrough(), position-1))
}

// removeGone follows users no more who were told to be gone.
func (w *statusWriter) removeGone(changes []feed.StatusChange) {
	for i := range changes {
		if changes[i].Gone() != nil {
			w.subscription.Unsubscribe(changes[i].UserID)
		}
	}
}
