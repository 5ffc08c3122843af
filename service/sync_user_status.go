package service

import (
	"cmp"
	"context"
	"errors"
	"io"
	"math"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/panics"
	"github.com/yourorg/userservice/service/user"
)

// maxOutstanding bounds the outstanding responses of a stream. Beyond it no message is read
// (backpressure).
const maxOutstanding = 128

// SyncUserStatus sets statuses and subscribes to them. One goroutine receives messages, submits
// changes and queues pending responses. This goroutine sends the responses in that order and,
// between them, changes of subscribed users.
func (s *Service) SyncUserStatus(
	ctx context.Context, stream *connect.BidiStream[userv1.UserStatusUpdate, userv1.UserStatusUpdate],
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.setPositionOf(stream.Conn(), s.feed.Head().Position)
	origin := s.feed.NewOrigin()
	subscription := s.feed.Subscribe(origin)
	defer subscription.Close()
	if err := stream.Send(nil); err != nil { // send the header
		return err
	}
	in := &statusReader{
		service: s, subscription: subscription, by: user.Author{Actor: author(ctx, "").Actor, Origin: origin},
		responses: make(chan pendingResponse, maxOutstanding), busy: make(chan struct{}, 1),
	}
	go in.receive(ctx, stream.Receive)
	return s.newStatusWriter(ctx, subscription, stream.Conn()).run(ctx, in)
}

// pendingResponse is the response to a message, in the order of the messages.
type pendingResponse struct {
	message *userv1.UserStatusUpdate
	pending *user.Pending       // submitted change or read; nil: none
	current *user.CurrentStatus // status read without a submit
	paused  bool                // the subscription to the user is paused until this response
	added   bool                // the message subscribed to the user
	err     error               // the message was rejected
}

// statusReader converts messages to pending responses.
type statusReader struct {
	service      *Service
	subscription *feed.Subscription
	by           user.Author
	responses    chan pendingResponse
	busy         chan struct{} // full while a message is processed, and from the drain on
	reserved     int           // number of users for which memory is reserved
	// Result of receive, set before responses is closed.
	end     error
	drained bool // ended by the shutdown; end is ignored
}

// receive reads messages until half-close, a failure of the stream, or shutdown. Messages not
// processed by then have no effect: each message with an effect gets a response.
func (r *statusReader) receive(ctx context.Context, next func() (*userv1.UserStatusUpdate, error)) {
	defer close(r.responses)
	defer panics.Recover(&r.end) // no interceptor covers this goroutine
	for {
		message, err := next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// The shutdown closes the receiving side.
			r.end, r.drained = err, r.service.feed.IsDraining()
			return
		}
		if r.end = r.enqueue(ctx, message); r.end != nil || r.drained {
			return
		}
	}
}

// enqueue processes a message and queues its response, unless the server is draining.
func (r *statusReader) enqueue(ctx context.Context, message *userv1.UserStatusUpdate) error {
	select {
	case r.busy <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.busy }()
	if r.drained = r.service.feed.IsDraining(); r.drained {
		return nil
	}
	select {
	case r.responses <- r.process(ctx, message):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// process submits the change of a message without waiting for its result.
func (r *statusReader) process(ctx context.Context, message *userv1.UserStatusUpdate) pendingResponse {
	// Keep only the fields that the response needs: messages may be large.
	response := pendingResponse{message: &userv1.UserStatusUpdate{
		UserId: message.GetUserId(), ActivityId: message.GetActivityId(), ClientSeq: message.GetClientSeq(), Progress: message.GetProgress(),
		Epoch: message.GetEpoch(),
	}}
	op, err := r.check(ctx, message)
	if err != nil {
		response.err = err
		return response
	}
	if message.GetUserId() == 0 {
		return response
	}
	state, err := r.subscription.Pause(message.GetUserId())
	if err != nil {
		response.err = err
		return response
	}
	if !r.reserve(ctx, state.Users) {
		r.subscription.Resume(message.GetUserId(), r.service.feed.Head().Position)
		r.subscription.Unsubscribe(message.GetUserId())
		response.err = user.NewOverloadedError()
		return response
	}
	response.paused, response.added = true, state.Fresh
	if op == nil && state.Outstanding == 0 {
		response.current, response.err = r.service.currentStatus(ctx, message.GetUserId())
		return response
	}
	if op == nil {
		op = &user.ReadBarrier{ID: message.GetUserId()} // after the outstanding changes
	}
	response.pending = r.service.store.Submit(ctx, user.Batch{Changes: []user.Change{{Op: op, By: r.by}}})
	return response
}

// reserve reserves memory for users subscribed by id. It is not released when they become fewer, because maps do not shrink.
func (r *statusReader) reserve(ctx context.Context, users int) bool {
	more := users - r.reserved
	if more <= 0 {
		return true
	}
	if budget.FromContext(ctx).Grow(budget.Subscription, int64(more)*followBytes) != nil {
		return false
	}
	r.reserved = users
	return true
}

// currentStatus returns the status of a user that is not deleted.
func (s *Service) currentStatus(ctx context.Context, id int64) (*user.CurrentStatus, error) {
	found, err := s.store.Statuses(ctx, []int64{id})
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, user.NewNotFoundError(id)
	case found[0].Deleted:
		return nil, user.NewDeletedError(id, found[0].Position)
	}
	return &found[0], nil
}

func (r *statusReader) check(ctx context.Context, message *userv1.UserStatusUpdate) (user.Op, error) {
	if err := r.service.opts.Validator.Validate(message); err != nil {
		return nil, err
	}
	if err := auth.AuthorizeMessage(ctx, userv1connect.UserServiceSyncUserStatusProcedure, message); err != nil {
		return nil, err
	}
	if message.GetStatus() == userv1.UserStatus_USER_STATUS_UNSPECIFIED {
		return nil, r.service.feed.CheckPosition(ctx, message.GetEpoch(), message.GetActivityId())
	}
	if message.GetUserId() == 0 {
		return nil, user.NewFieldErrorf("user_id", "must be greater than 0 to set a status")
	}
	return setStatusOp(message.GetUserId(), message.GetStatus(), message.GetTimestamp())
}

// drain sends the outstanding responses, including that of a message being processed, and ends
// the stream.
func (w *statusWriter) drain(ctx context.Context, in *statusReader) error {
	for last := false; !last || len(in.responses) > 0; {
		busy := in.busy
		if last {
			busy = nil
		}
		select {
		case response, more := <-in.responses:
			if !more {
				return w.finalError(in)
			}
			if err := w.respond(ctx, in, &response); err != nil {
				return err
			}
		case busy <- struct{}{}:
			last = true // no message is or will be processed
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return w.subscription.Drained()
}

// finalError returns the result of the stream after its last response.
func (w *statusWriter) finalError(in *statusReader) error {
	if in.drained {
		return w.subscription.Drained()
	}
	return in.end
}

func (w *statusWriter) respond(ctx context.Context, in *statusReader, a *pendingResponse) error {
	update, err := w.result(ctx, a)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		update = w.service.statusFailure(a.message.GetUserId(), err)
		if e, known := user.AsError(err); known {
			update.ActivityId = e.Position
		}
	}
	update.ClientSeq = a.message.GetClientSeq()
	if a.message.GetProgress() {
		w.enableProgress()
	}
	if err := w.conn.Send(update); err != nil {
		return w.sendError(cmp.Or(update.GetActivityId(), math.MaxInt64), err)
	}
	if a.paused {
		position := update.GetActivityId()
		if user.HasReason(err, user.UserNotFound) {
			position = feed.MaxPosition
		}
		in.subscription.Resume(a.message.GetUserId(), position)
		if err != nil && (a.added || user.HasReason(err, user.UserDeleted) || user.HasReason(err, user.UserNotFound)) {
			in.subscription.Unsubscribe(a.message.GetUserId())
		}
	}
	if err == nil && a.message.GetUserId() == 0 {
		// Start at the position of the response or at an earlier requested one, without a
		// snapshot.
		after := a.message.GetActivityId()
		if a.message.GetEpoch() == "" { // with an epoch, 0 is the position before the first row
			after = cmp.Or(after, update.GetActivityId())
		}
		in.subscription.SubscribeAll(after)
	}
	return nil
}

// result waits for the change of a message and returns the status after it.
func (w *statusWriter) result(ctx context.Context, a *pendingResponse) (*userv1.UserStatusUpdate, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case a.pending != nil:
		w.flushUnlessReady(a.pending.Done())
		results, err := a.pending.Wait(ctx)
		if err != nil {
			return nil, err
		}
		if results[0].Err != nil {
			return nil, results[0].Err
		}
		return w.service.statusUpdate(results[0].User.CurrentStatus()), nil
	case a.current != nil:
		return w.service.statusUpdate(*a.current), nil
	default: // subscribe to all users
		head := w.service.feed.Head()
		return &userv1.UserStatusUpdate{ActivityId: head.Position, Epoch: head.Epoch}, nil
	}
}

func (w *statusWriter) flushUnlessReady(ready <-chan struct{}) {
	select {
	case <-ready:
	default:
		w.flush.Uncork()
		w.flush.Cork()
	}
}
