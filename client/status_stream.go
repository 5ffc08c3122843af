package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

type statusConn = connect.BidiStreamForClientSimple[userv1.UserStatusUpdate, userv1.UserStatusUpdate]

// stream runs one stream of the session. It returns nil after the half-close.
func (s *statusSync) stream(ctx context.Context, a *attempt) error {
	if !s.start() {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	stream, err := a.rpc.SyncUserStatus(ctx)
	if err != nil {
		cancel()
		return err
	}
	sender := make(chan struct{})
	go func() {
		defer close(sender)
		s.send(ctx, stream)
	}()
	defer func() {
		cancel()
		_ = stream.CloseResponse()
		<-sender
	}()
	for {
		var update *userv1.UserStatusUpdate
		var err error
		a.receive(ctx, func() bool {
			update, err = stream.Receive()
			return err == nil
		})
		switch {
		case errors.Is(err, io.EOF) && s.finished():
			return nil
		case errors.Is(err, io.EOF):
			return errEarlyEnd
		case err != nil:
			return err
		}
		if err := s.receive(update); err != nil {
			return err
		}
	}
}

// start prepares a new stream: follow again, then send again what was not acknowledged. It reports false if nothing
// is left to do.
func (s *statusSync) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	outstanding := make([]*statusMessage, 0, len(s.queue))
	for _, m := range s.queue {
		if m.respond != nil {
			outstanding = append(outstanding, m)
		}
	}
	if s.closed && len(outstanding) == 0 {
		return false
	}
	s.queue = append(s.follow.messages(), outstanding...)
	s.sent = 0
	clear(s.setting)
	return true
}

// finished reports whether the stream may end: it is half-closed and each message has its response.
func (s *statusSync) finished() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed && len(s.queue) == 0
}

// send sends the queue and further messages until the half-close or the end of the stream.
func (s *statusSync) send(ctx context.Context, stream *statusConn) {
	// Send the header, so that the header of the response comes before the first message.
	if stream.Send(nil) != nil {
		return // Receive returns the error
	}
	ahead := clockAhead(stream.ResponseHeader(), s.client.now())
	for {
		message, closed := s.next(ahead)
		switch {
		case message != nil:
			if stream.Send(message) != nil {
				return
			}
		case closed:
			_ = stream.CloseRequest()
			return
		default:
			select {
			case <-s.wake:
			case <-ctx.Done():
				_ = stream.CloseRequest() // net/http notices the end of a context only after that of the request body
				return
			}
		}
	}
}

// next returns the next message to send, or nil. Two statuses of the same user are never outstanding together: of
// several that were sent, none could be sent again without its effect on the others.
func (s *statusSync) next(ahead time.Duration) (message *userv1.UserStatusUpdate, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent == len(s.queue) {
		return nil, s.closed
	}
	m := s.queue[s.sent]
	if m.setsStatus() {
		if s.setting[m.message.GetUserId()] {
			return nil, false // receive wakes the sender
		}
		s.setting[m.message.GetUserId()] = true
	}
	s.sent++
	s.seq++
	m.seq = s.seq
	message = proto.CloneOf(m.message)
	message.ClientSeq, message.Progress = m.seq, true
	m.stamp(message, s.client.now(), ahead, s.follow.users[m.message.GetUserId()].since)
	return message, false
}

// receive handles a message of the server.
func (s *statusSync) receive(update *userv1.UserStatusUpdate) error {
	if update.GetClientSeq() == 0 {
		s.mu.Lock()
		news := s.follow.change(update)
		s.mu.Unlock()
		if news {
			s.onChange(update)
		}
		return nil
	}
	s.mu.Lock()
	if s.sent == 0 || s.queue[0].seq != update.GetClientSeq() {
		s.mu.Unlock()
		return connect.NewError(connect.CodeUnavailable, fmt.Errorf("unexpected client_seq %d", update.GetClientSeq()))
	}
	m := s.queue[0]
	s.queue, s.sent = s.queue[1:], s.sent-1
	if m.setsStatus() {
		delete(s.setting, m.message.GetUserId())
	}
	news := s.follow.response(m.message.GetUserId(), update)
	s.wakeSender()
	s.mu.Unlock()
	if m.respond == nil {
		if update.GetError() != nil && !gone(update) {
			return newItemError("SyncUserStatus", update.GetFailure())
		}
		if news {
			update.ClientSeq = 0
			s.onChange(update)
		}
		return nil
	}
	update.ClientSeq = m.message.GetClientSeq()
	<-s.window
	m.respond(update)
	return nil
}

// clockTolerance is the difference of the clocks that is ignored: the header Date has seconds only.
const clockTolerance = 2 * time.Second

// clockAhead returns how far this clock is ahead of that of the server, from the header of a response that has just
// been received.
func clockAhead(header http.Header, now time.Time) time.Duration {
	date, err := http.ParseTime(header.Get("Date"))
	if err != nil {
		return 0
	}
	ahead := now.Sub(date)
	if ahead.Abs() <= clockTolerance {
		return 0
	}
	return ahead
}

func (m *statusMessage) setsStatus() bool {
	return m.message.GetStatus() != userv1.UserStatus_USER_STATUS_UNSPECIFIED
}

// stamp is called before each attempt of a message. The server sets the time of the first one. A message that is sent
// again has that time, by the clock of the server, but not before since, the time of the status known when it was sent.
func (m *statusMessage) stamp(message *userv1.UserStatusUpdate, now time.Time, ahead time.Duration, since time.Time) {
	if !m.setsStatus() || message.GetTimestamp() != nil {
		return
	}
	if m.firstSent.IsZero() {
		m.firstSent, m.since = now, since
		return
	}
	at := m.firstSent.Add(-ahead)
	if at.Before(m.since) {
		at = m.since
	}
	message.Timestamp = timestamppb.New(at.Truncate(time.Microsecond))
}

// followed is what a session follows, with the newest delivered position of each user.
type followed struct {
	users map[int64]knownStatus
	all   bool
	// The position up to which all changes are delivered, if all users are followed, and the newest position of each
	// user in a response behind it.
	position  position
	responses map[int64]int64
}

// knownStatus is the last delivered status of a user.
type knownStatus struct {
	position int64
	since    time.Time
}

func newFollowed() followed {
	return followed{users: make(map[int64]knownStatus), responses: make(map[int64]int64)}
}

func newKnownStatus(update *userv1.UserStatusUpdate) knownStatus {
	return knownStatus{position: update.GetActivityId(), since: update.GetTimestamp().AsTime()}
}

// messages returns the messages that follow again.
func (f *followed) messages() []*statusMessage {
	if f.all {
		return []*statusMessage{{message: &userv1.UserStatusUpdate{ActivityId: f.position.number, Epoch: f.position.epoch}}}
	}
	var all []*statusMessage
	for id := range f.users {
		all = append(all, &statusMessage{message: &userv1.UserStatusUpdate{UserId: id}})
	}
	return all
}

// response records the response to a message for a user, and reports whether its status was not delivered before.
func (f *followed) response(id int64, update *userv1.UserStatusUpdate) (news bool) {
	switch {
	case update.GetError() != nil:
		if gone(update) {
			delete(f.users, id)
		}
		return true
	case id == 0:
		if !f.all {
			f.all, f.position = true, position{epoch: update.GetEpoch(), number: update.GetActivityId()}
		}
		return false
	default:
		news = f.users[id].position != update.GetActivityId()
		f.users[id] = newKnownStatus(update)
		f.responses[id] = update.GetActivityId()
		return news
	}
}

// change records a change, and reports whether it was not delivered before.
func (f *followed) change(update *userv1.UserStatusUpdate) (news bool) {
	id, number := update.GetUserId(), update.GetActivityId()
	if f.all { // a change that waited for a response follows later ones
		f.position.number = max(f.position.number, number)
	}
	if update.GetError() != nil {
		delete(f.users, id)
		return true
	}
	if update.GetProgress() {
		clear(f.responses)
		return false
	}
	before, known := f.users[id]
	if known {
		f.users[id] = newKnownStatus(update)
	}
	return before.position < number && f.responses[id] < number
}

// gone reports whether the user of an error is not followed any more.
func gone(update *userv1.UserStatusUpdate) bool {
	reason := update.GetFailure().GetReason()
	return reason == userv1.ErrorReason_USER_DELETED || reason == userv1.ErrorReason_USER_NOT_FOUND
}
