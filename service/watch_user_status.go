package service

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/yourorg/userservice/service/reqinfo"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// WatchUserStatus streams the statuses of users in the order of positions. A client that resumes
// after the last position misses nothing.
func (s *Service) WatchUserStatus(
	ctx context.Context, req *userv1.WatchUserStatusRequest, stream *connect.ServerStream[userv1.UserStatusUpdate],
) error {
	if req.GetAll() == (len(req.GetUserIds()) > 0) {
		return user.NewFieldErrorf("user_ids", "exactly one of user_ids and all must be set")
	}
	after, head := req.GetAfterActivityId(), s.feed.Head().Position
	if err := s.feed.CheckPosition(ctx, req.GetEpoch(), after); err != nil {
		return err
	}
	s.setPositionOf(stream.Conn(), head)
	subscription := s.feed.Subscribe(0)
	defer subscription.Close()
	if err := stream.Send(nil); err != nil { // send the header
		return err
	}
	w := s.newStatusWriter(ctx, subscription, stream.Conn())
	w.flush.Cork()
	if req.GetProgress() {
		w.enableProgress()
	}
	if req.GetAll() {
		if req.GetEpoch() == "" { // with an epoch, 0 is the position before the first row
			after = cmp.Or(after, head)
		}
		subscription.SubscribeAll(after)
	} else if err := w.sendInitial(ctx, req.GetUserIds(), after); err != nil {
		return w.endError(ctx, err)
	}
	return w.run(ctx, nil)
}

const (
	// followBytes is the memory of a subscribed user in the maps of stream and feed.
	followBytes = 320
	// startFollowBytes is the additional memory while the initial statuses are read.
	startFollowBytes = 384
)

// statusWriter sends responses and status changes. The fields that a delivery needs are the first cache line.
type statusWriter struct {
	service      *Service
	subscription *feed.Subscription

	// mu is held by the goroutine of the stream except while it waits, also after its end. While it waits, Deliver sends.
	mu     sync.Mutex
	direct directDelivery

	conn        connect.StreamingHandlerConn
	flush       reqinfo.FlushControl
	beat        *time.Ticker // progress interval; nil: progress not requested
	progressDue bool         // send a progress message before the next wait
	unsent      int64        // position of the message whose send has failed; 0: none

	_ [8]byte // the size of the struct is a size class of the allocator, and whole cache lines
}

func (s *Service) newStatusWriter(ctx context.Context, subscription *feed.Subscription, conn connect.StreamingHandlerConn) *statusWriter {
	w := &statusWriter{service: s, subscription: subscription, conn: conn, flush: flusher(ctx)}
	w.mu.Lock()
	w.deliverDirectly()
	return w
}

// enableProgress sends a progress message when the stream has caught up, then periodically.
func (w *statusWriter) enableProgress() {
	w.progressDue = true
	if w.beat == nil {
		w.beat = time.NewTicker(w.service.opts.Heartbeat)
	}
}

func (w *statusWriter) ticks() <-chan time.Time {
	if w.beat == nil {
		return nil
	}
	return w.beat.C
}

// beforeWait sends a due progress message and flushes, unless more is ready to send.
func (w *statusWriter) beforeWait(more bool) error {
	if more {
		return nil
	}
	if w.progressDue {
		w.progressDue = false
		if err := w.conn.Send(w.service.statusProgress(w.subscription.DeliveredThrough())); err != nil {
			return err
		}
	}
	w.flush.Uncork()
	return nil
}

// sendInitial subscribes to users and sends their current statuses, or those changed after a
// position.
func (w *statusWriter) sendInitial(ctx context.Context, ids []int64, after int64) error {
	memory := budget.FromContext(ctx)
	initial := int64(len(ids)) * startFollowBytes
	if memory.Grow(budget.Subscription, int64(len(ids))*followBytes+initial) != nil {
		return user.NewOverloadedError()
	}
	defer memory.Shrink(budget.Subscription, initial)
	if err := w.subscription.PauseAll(ctx, ids); err != nil {
		return err
	}
	head := w.service.feed.Head().Position
	changes, err := w.service.feed.Statuses(ctx, ids, after)
	if err != nil {
		return err
	}
	// Changes committed during the read are delivered live, after all older ones.
	changes = slices.DeleteFunc(changes, func(c feed.StatusChange) bool { return c.Position > head })
	slices.SortFunc(changes, func(a, b feed.StatusChange) int { return cmp.Compare(a.Position, b.Position) })
	sent := make(map[int64]int64, len(changes))
	for i := range changes {
		if err := w.sendChange(&changes[i]); err != nil {
			return err
		}
		sent[changes[i].UserID] = changes[i].Position
	}
	for _, id := range ids {
		w.subscription.Resume(id, sent[id])
	}
	w.unsubscribeGone(changes)
	return nil
}

func (w *statusWriter) sendChanges(ctx context.Context) error {
	changes, err := w.subscription.Poll(ctx)
	if err != nil {
		return err
	}
	return w.sendAll(changes, w.sendChange)
}

func (w *statusWriter) sendAll(changes []feed.StatusChange, send func(*feed.StatusChange) error) error {
	for i := range changes {
		if err := send(&changes[i]); err != nil {
			return err
		}
	}
	w.unsubscribeGone(changes)
	return nil
}

func (w *statusWriter) sendChange(change *feed.StatusChange) error {
	return w.sendError(change.Position, w.conn.Send(w.service.sharedStatusChange(change)))
}

// sendError records that the change at a position was not sent.
func (w *statusWriter) sendError(position int64, err error) error {
	if err != nil && w.unsent == 0 {
		w.unsent = max(position, 1) // the error of a user that does not exist has position 0
	}
	return err
}

// endError returns the error of a stream with the position after which the client can resume.
func (w *statusWriter) endError(ctx context.Context, err error) error {
	through := w.subscription.DeliveredThrough()
	if w.unsent > 0 {
		through = min(through, w.unsent-1)
	}
	return w.service.endError(ctx, err, through)
}

// unsubscribeGone unsubscribes from users whose deletion was sent.
func (w *statusWriter) unsubscribeGone(changes []feed.StatusChange) {
	for i := range changes {
		if changes[i].Err() != nil {
			w.subscription.Unsubscribe(changes[i].UserID)
		}
	}
}
