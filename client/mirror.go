package client

import (
	"context"
	"iter"
	"slices"
	"sync"
	"time"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// MirrorOptions select the users of a Mirror.
type MirrorOptions struct {
	Filter      string   // as in ListUsersRequest. Default: all users
	ShowDeleted bool     // keep deleted users until they are purged
	Fields      []string // fields of User to keep. Default: all. ByUsername and ByEmail need theirs
}

// MirrorChange is a change of a Mirror.
type MirrorChange struct {
	UserID int64
	Before *userv1.User // nil: added
	After  *userv1.User // nil: removed
}

// MirrorStatus describes how current a Mirror is.
type MirrorStatus struct {
	Ready     bool      // the copy was complete at least once
	Connected bool      // changes are being received
	Epoch     string    // of Position
	Position  int64     // the copy has all changes up to this position of the log
	Received  time.Time // last message of the server, at least every 15 s while connected
}

// Mirror is a live, read-only copy of the directory or of a part of it. It continues after interruptions, with the
// users as of the last message. If it was interrupted for longer than the log is retained, or the store was restored, it
// fetches all users again and keeps the old copy until then. It is safe for concurrent use. The users that it returns
// are shared: they must not be changed.
type Mirror struct {
	client  *Client
	options MirrorOptions
	cancel  context.CancelFunc
	ready   chan struct{} // closed when the first copy is complete
	ended   chan struct{} // closed after err is set
	err     error

	mu       sync.RWMutex
	current  *copyOfUsers
	next     *copyOfUsers // being fetched; nil: current is live
	resume   position     // of the last message
	status   MirrorStatus
	waiters  []*mirrorWaiter
	watchers []*mirrorWatcher
}

type mirrorWaiter struct {
	position int64
	reached  chan struct{}
}

type mirrorWatcher struct{ onChange func(MirrorChange) }

// Mirror starts a mirror, which lasts until Close or the end of the context. It is empty until it is ready.
func (c *Client) Mirror(ctx context.Context, options MirrorOptions) *Mirror {
	ctx, cancel := context.WithCancel(ctx)
	m := &Mirror{
		client: c, options: options, cancel: cancel, ready: make(chan struct{}), ended: make(chan struct{}),
		current: newCopyOfUsers(), next: newCopyOfUsers(),
	}
	go func() {
		defer close(m.ended)
		defer cancel()
		m.err = c.mend(ctx, "WatchUsers", m.stream)
	}()
	return m
}

// Close ends the mirror. The copy can still be read.
func (m *Mirror) Close() {
	m.cancel()
	<-m.ended
}

// Done is closed when the mirror has ended, see Err.
func (m *Mirror) Done() <-chan struct{} { return m.ended }

// Err returns why the mirror has ended, such as ErrPermissionMissing or ErrInvalidField for the filter; nil while it
// runs.
func (m *Mirror) Err() error {
	select {
	case <-m.ended:
		return m.err
	default:
		return nil
	}
}

// WaitReady waits until the copy is complete for the first time. It returns the error of the context or the mirror.
func (m *Mirror) WaitReady(ctx context.Context) error { return m.await(ctx, m.ready) }

// WaitFor waits until the copy has all changes up to a position, such as last_activity_id of a user that a write has
// returned. A change outside the filter, and an activity of an application, is known after up to 15 s.
func (m *Mirror) WaitFor(ctx context.Context, position int64) error {
	m.mu.Lock()
	if m.status.Ready && m.status.Position >= position {
		m.mu.Unlock()
		return nil
	}
	w := &mirrorWaiter{position: position, reached: make(chan struct{})}
	m.waiters = append(m.waiters, w)
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.waiters = slices.DeleteFunc(m.waiters, func(other *mirrorWaiter) bool { return other == w })
	}()
	return m.await(ctx, w.reached)
}

func (m *Mirror) await(ctx context.Context, event <-chan struct{}) error {
	select {
	case <-event:
		return nil
	case <-m.ended:
		return m.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Status returns how current the copy is.
func (m *Mirror) Status() MirrorStatus {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.status
}

// Get returns the user with an id.
func (m *Mirror) Get(id int64) (*userv1.User, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	u, ok := m.current.users[id]
	return u, ok
}

// ByUsername returns the user with a username, compared by its normal form: without regard to case, width and surplus
// spaces.
func (m *Mirror) ByUsername(username string) (*userv1.User, bool) {
	key, ok := usernameKey(username)
	if !ok {
		return nil, false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	u, ok := m.current.users[m.current.usernames[key]]
	return u, ok
}

// ByEmail returns the user with an e-mail address, compared by its normal form.
func (m *Mirror) ByEmail(email string) (*userv1.User, bool) {
	key, ok := emailKey(email)
	if !ok {
		return nil, false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	u, ok := m.current.users[m.current.emails[key]]
	return u, ok
}

// Len returns the number of users.
func (m *Mirror) Len() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.current.users)
}

// Users returns the users at the time of the call, in any order.
func (m *Mirror) Users() iter.Seq[*userv1.User] {
	m.mu.RLock()
	defer m.mu.RUnlock()
	users := make([]*userv1.User, 0, len(m.current.users))
	for _, u := range m.current.users {
		users = append(users, u)
	}
	return slices.Values(users)
}

// OnChange calls fn for each change of the copy from now on, after the copy has it, until stop is called. When the copy
// becomes complete, each difference to the copy before is a change. The mirror waits for fn, which must not close it.
func (m *Mirror) OnChange(fn func(MirrorChange)) (stop func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := &mirrorWatcher{onChange: fn}
	m.watchers = append(slices.Clone(m.watchers), w)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watchers = slices.DeleteFunc(slices.Clone(m.watchers), func(other *mirrorWatcher) bool { return other == w })
	}
}
