package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime/debug"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/auth"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/user"
)

// maxOutstanding is how many answers of a stream may wait, to be durable or to be
// taken. When they do, no further message is read.
const maxOutstanding = 128

// SyncUserStatus sets and follows statuses. One goroutine receives: it hands every
// message to the store, or notes what it asks, and queues the answer's place. This
// goroutine sends: the answers in that order, and between them what others change.
func (s *Service) SyncUserStatus(
	ctx context.Context, stream *connect.BidiStream[userv1.UserStatusUpdate, userv1.UserStatusUpdate],
) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.answerReflects(ctx, s.feed.Head().Position)
	origin := s.feed.NewOrigin()
	subscription := s.feed.Subscribe(origin)
	defer subscription.Close()
	if err := stream.Send(nil); err != nil { // the header: the stream stands
		return err
	}
	in := &statusReader{
		service: s, subscription: subscription, by: user.Author{Actor: author(ctx, "").Actor, Origin: origin},
		answers: make(chan statusAnswer, maxOutstanding), taking: make(chan struct{}, 1),
	}
	go in.receive(ctx, stream.Receive)
	out := statusWriter{service: s, subscription: subscription, send: stream.Send, flush: flusher(ctx)}
	return out.answerAll(ctx, in)
}

// statusAnswer is the place of an answer in the order of the messages.
type statusAnswer struct {
	message *userv1.UserStatusUpdate
	pending *user.Pending       // of what the store is to do; nil: there was nothing
	present *user.CurrentStatus // as of the message, where the store had nothing to do
	holds   bool                // the user's changes are kept back until this answer
	fresh   bool                // the user was not followed before this message
	err     error               // the message failed before it reached the store
}

// statusReader turns messages into outstanding answers.
type statusReader struct {
	service      *Service
	subscription *feed.Subscription
	by           user.Author
	answers      chan statusAnswer
	taking       chan struct{} // full while a message is being taken, and for good at a drain
	// Why there are no more answers; set before answers is closed.
	end     error
	drained bool // the server is about to stop, and not what end says
}

// receive ends when the caller closes its side, when the stream breaks, or when the
// server is about to stop. What is not taken by then has no effect, so that every
// message that has one gets its answer.
func (r *statusReader) receive(ctx context.Context, next func() (*userv1.UserStatusUpdate, error)) {
	defer close(r.answers)
	defer func() {
		// On a goroutine of its own nobody further out catches a panic.
		if value := recover(); value != nil {
			r.end = fmt.Errorf("panic: %v\n%s", value, debug.Stack())
		}
	}()
	for {
		message, err := next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			// At a drain the server ends the reading.
			r.end, r.drained = err, r.service.feed.IsDraining()
			return
		}
		if r.end = r.enqueue(ctx, message); r.end != nil || r.drained {
			return
		}
	}
}

// enqueue takes a message and gives its answer a place, unless the server is about to
// stop.
func (r *statusReader) enqueue(ctx context.Context, message *userv1.UserStatusUpdate) error {
	select {
	case r.taking <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-r.taking }()
	if r.drained = r.service.feed.IsDraining(); r.drained {
		return nil
	}
	select {
	case r.answers <- r.take(ctx, message):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// take does what a message asks as far as that needs no waiting.
func (r *statusReader) take(ctx context.Context, message *userv1.UserStatusUpdate) statusAnswer {
	panicIfPlanted(message.GetUserId())
	// What the response needs; a message may be large, and many responses outstanding.
	answer := statusAnswer{message: &userv1.UserStatusUpdate{
		UserId: message.GetUserId(), ActivityId: message.GetActivityId(), ClientSeq: message.GetClientSeq(), Progress: message.GetProgress(),
	}}
	op, err := r.check(ctx, message)
	if err != nil {
		answer.err = err
		return answer
	}
	if message.GetUserId() == 0 {
		return answer
	}
	held, err := r.subscription.Pause(message.GetUserId())
	if err != nil {
		answer.err = err
		return answer
	}
	if held.Fresh && budget.FromContext(ctx).Grow(budget.Subscription, followBytes) != nil {
		r.subscription.Resume(message.GetUserId(), r.service.feed.Head().Position)
		r.subscription.Unsubscribe(message.GetUserId())
		answer.err = user.NewOverloadedError()
		return answer
	}
	answer.holds, answer.fresh = true, held.Fresh
	if op == nil && held.Outstanding == 0 {
		answer.present, answer.err = r.service.currentStatus(ctx, message.GetUserId())
		return answer
	}
	if op == nil {
		op = &user.ReadBarrier{ID: message.GetUserId()} // after what is under way
	}
	answer.pending = r.service.store.Submit(ctx, user.Batch{Changes: []user.Change{{Op: op, By: r.by}}})
	return answer
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
	if err := r.service.opts.Validate(message); err != nil {
		return nil, err
	}
	if err := auth.AuthorizeMessage(ctx, userv1connect.UserServiceSyncUserStatusProcedure, message); err != nil {
		return nil, err
	}
	if message.GetStatus() == userv1.UserStatus_USER_STATUS_UNSPECIFIED {
		return nil, r.service.feed.CheckPosition(ctx, message.GetEpoch(), message.GetActivityId())
	}
	if message.GetUserId() == 0 {
		return nil, user.NewFieldErrorf("user_id", "must be greater than 0 where a status is to be set")
	}
	return setStatusOp(message.GetUserId(), message.GetStatus(), message.GetTimestamp())
}

// answerAll sends answers and changes until there are no more answers to come.
func (w *statusWriter) answerAll(ctx context.Context, in *statusReader) error {
	w.flush.Hold()
	defer func() {
		if w.beat != nil {
			w.beat.Stop()
		}
	}()
	for {
		if err := w.atHand(len(in.answers) > 0 || len(w.subscription.Wake()) > 0); err != nil {
			return err
		}
		var err error
		select {
		case answer, more := <-in.answers:
			w.flush.Hold()
			if !more {
				return w.last(in)
			}
			err = w.answer(ctx, in, &answer)
		case <-w.subscription.Wake():
			w.flush.Hold()
			err = w.changes(ctx)
		case <-w.ticks():
			w.due = true
		case <-w.service.feed.Draining():
			return w.drain(ctx, in)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// drain gives the answers that are outstanding, that of a message that is being taken
// included, and ends the stream.
func (w *statusWriter) drain(ctx context.Context, in *statusReader) error {
	for last := false; !last || len(in.answers) > 0; {
		taking := in.taking
		if last {
			taking = nil
		}
		select {
		case answer, more := <-in.answers:
			if !more {
				return w.last(in)
			}
			if err := w.answer(ctx, in, &answer); err != nil {
				return err
			}
		case taking <- struct{}{}:
			last = true // nothing is being taken, and nothing will be
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return w.subscription.Drained()
}

// last gives the end of the stream once all its answers are given.
func (w *statusWriter) last(in *statusReader) error {
	if in.drained {
		return w.subscription.Drained()
	}
	return in.end
}

// answer gives the one answer to a message.
func (w *statusWriter) answer(ctx context.Context, in *statusReader, a *statusAnswer) error {
	update, err := w.outcome(ctx, a)
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
		w.askProgress()
	}
	if err := w.send(update); err != nil {
		return w.before(cmp.Or(update.GetActivityId(), math.MaxInt64), err)
	}
	if a.holds {
		delivered := update.GetActivityId()
		if user.HasReason(err, user.UserNotFound) {
			delivered = feed.MaxPosition
		}
		in.subscription.Resume(a.message.GetUserId(), delivered)
		if err != nil && (a.fresh || user.HasReason(err, user.UserDeleted) || user.HasReason(err, user.UserNotFound)) {
			in.subscription.Unsubscribe(a.message.GetUserId())
			budget.FromContext(ctx).Shrink(budget.Subscription, followBytes)
		}
	}
	if err == nil && a.message.GetUserId() == 0 {
		// From the position in the answer on, or from an earlier one asked for:
		// there is no snapshot of everybody.
		in.subscription.SubscribeAll(cmp.Or(a.message.GetActivityId(), update.GetActivityId()))
	}
	return nil
}

// outcome waits for what a message asked, and gives the user's status after it.
func (w *statusWriter) outcome(ctx context.Context, a *statusAnswer) (*userv1.UserStatusUpdate, error) {
	switch {
	case a.err != nil:
		return nil, a.err
	case a.pending != nil:
		w.releaseUnless(a.pending.Done())
		results, err := a.pending.Wait(ctx)
		if err != nil {
			return nil, err
		}
		if results[0].Err != nil {
			return nil, results[0].Err
		}
		return w.service.statusUpdate(results[0].User.CurrentStatus()), nil
	case a.present != nil:
		return w.service.statusUpdate(*a.present), nil
	default: // to follow everybody
		head := w.service.feed.Head()
		return &userv1.UserStatusUpdate{ActivityId: head.Position, Epoch: head.Epoch}, nil
	}
}

// releaseUnless lets what was written go before a wait, unless there is none.
func (w *statusWriter) releaseUnless(ready <-chan struct{}) {
	select {
	case <-ready:
	default:
		w.flush.Release()
		w.flush.Hold()
	}
}
