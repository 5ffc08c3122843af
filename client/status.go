package client

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// StatusSession sets and follows statuses over a SyncUserStatus stream. When the stream is interrupted, the session
// follows its users again and sends again what was not acknowledged; responses of the earlier stream are dropped. It
// is safe for concurrent use and needs HTTP/2.
//
// A status that is sent again has the time of the first attempt, by the clock of the server, so it does not replace a
// status that another caller has set since.
type StatusSession struct {
	sync *statusSync
}

// OpenStatusSession opens a session that lasts until Close or the end of the context. onChange is called for each
// change that other callers make to followed users, and for the deletion of a followed user, which has an error and
// ends the following. While it runs, nothing else is received. It must not call the session. nil: changes are ignored.
func (c *Client) OpenStatusSession(ctx context.Context, onChange func(*userv1.UserStatusUpdate)) *StatusSession {
	if onChange == nil {
		onChange = func(*userv1.UserStatusUpdate) {}
	}
	return &StatusSession{sync: c.newStatusSync(ctx, onChange)}
}

// Set sets the status of a user, durably, and follows the user. It returns the status after it. Errors:
// ErrUserNotFound, ErrUserDeleted.
func (s *StatusSession) Set(ctx context.Context, id int64, status userv1.UserStatus) (*userv1.UserStatusUpdate, error) {
	return s.Send(ctx, &userv1.UserStatusUpdate{UserId: id, Status: status})
}

// Follow follows a user and returns its current status. Errors: ErrUserNotFound, ErrUserDeleted, ErrTooManyFollows.
func (s *StatusSession) Follow(ctx context.Context, id int64) (*userv1.UserStatusUpdate, error) {
	return s.Send(ctx, &userv1.UserStatusUpdate{UserId: id})
}

// FollowAll follows all users, without their current statuses.
func (s *StatusSession) FollowAll(ctx context.Context) error {
	_, err := s.Send(ctx, &userv1.UserStatusUpdate{})
	return err
}

// Send sends a message and returns its response. If the context ends first, the message may still be applied.
func (s *StatusSession) Send(ctx context.Context, message *userv1.UserStatusUpdate) (*userv1.UserStatusUpdate, error) {
	response := make(chan *userv1.UserStatusUpdate, 1)
	if err := s.sync.submit(ctx, message, func(r *userv1.UserStatusUpdate) { response <- r }); err != nil {
		return nil, err
	}
	select {
	case r := <-response:
		if r.GetFailure() != nil {
			return nil, newItemError("SyncUserStatus", r.GetFailure())
		}
		return r, nil
	case <-s.sync.ended:
		select {
		case r := <-response:
			return r, newItemError("SyncUserStatus", r.GetFailure())
		default:
			return nil, s.sync.endError()
		}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Close waits for the outstanding responses, ends the session, and returns the error that ended it before, if any.
func (s *StatusSession) Close() error {
	s.sync.halfClose()
	<-s.sync.ended
	return s.sync.err
}

// SyncUserStatus sends the messages of requests, and sends to responses each response, in the order of the messages,
// and between them the changes that other callers make to followed users. client_seq is returned in the response;
// that of a change is 0. It returns after requests is closed and the last response is sent, or with the error that
// ended the stream. It closes responses. Interruptions are handled as by a StatusSession.
func (c *Client) SyncUserStatus(ctx context.Context, requests <-chan *userv1.UserStatusUpdate, responses chan<- *userv1.UserStatusUpdate) error {
	defer close(responses)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	deliver := func(update *userv1.UserStatusUpdate) {
		select {
		case responses <- update:
		case <-ctx.Done():
		}
	}
	s := c.newStatusSync(ctx, deliver)
	// deliver must not be called after responses is closed.
	defer func() { <-s.ended }()
	defer cancel()
	for {
		select {
		case message, ok := <-requests:
			if !ok {
				s.halfClose()
				<-s.ended
				return s.err
			}
			if err := s.submit(ctx, message, deliver); err != nil {
				return err
			}
		case <-s.ended:
			return s.endError()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// statusWindow is the maximum number of messages without response. More wait in submit.
const statusWindow = 1024

// statusSync is a SyncUserStatus stream that reconnects.
type statusSync struct {
	client   *Client
	onChange func(*userv1.UserStatusUpdate)
	window   chan struct{} // holds a value for each queued message
	wake     chan struct{} // wakes the sender
	ended    chan struct{} // closed after err is set
	err      error

	mu     sync.Mutex
	queue  []*statusMessage // without response, in order
	sent   int              // messages of the queue that are sent on this stream
	seq    int64            // client_seq of the last sent message
	closed bool             // no further message
	follow followed

	setting map[int64]bool // users with a sent status without response
}

// statusMessage is a message without response.
type statusMessage struct {
	message   *userv1.UserStatusUpdate
	respond   func(*userv1.UserStatusUpdate) // nil: it follows again
	seq       int64                          // on the current stream
	firstSent time.Time                      // of a status; zero: not sent yet
	since     time.Time                      // of the status known at firstSent
}

func (c *Client) newStatusSync(ctx context.Context, onChange func(*userv1.UserStatusUpdate)) *statusSync {
	s := &statusSync{
		client: c, onChange: onChange, window: make(chan struct{}, statusWindow), wake: make(chan struct{}, 1), ended: make(chan struct{}),
		follow: newFollowed(), setting: make(map[int64]bool),
	}
	go func() {
		defer close(s.ended)
		select {
		case <-s.wake: // the first message
			s.err = c.mend(ctx, "SyncUserStatus", s.stream)
		case <-ctx.Done():
			s.err = contextError(ctx, "SyncUserStatus")
		}
	}()
	return s
}

// submit queues a copy of a message. respond is called with the response.
func (s *statusSync) submit(ctx context.Context, message *userv1.UserStatusUpdate, respond func(*userv1.UserStatusUpdate)) error {
	select {
	case s.window <- struct{}{}:
	case <-s.ended:
		return s.endError()
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		<-s.window
		return ErrClosed
	}
	s.queue = append(s.queue, &statusMessage{message: proto.CloneOf(message), respond: respond})
	s.wakeSender()
	return nil
}

// halfClose ends the stream after the outstanding responses.
func (s *statusSync) halfClose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.wakeSender()
}

func (s *statusSync) wakeSender() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *statusSync) endError() error {
	if s.err != nil {
		return s.err
	}
	return ErrClosed
}
