package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// stream runs one stream of the mirror.
func (m *Mirror) stream(ctx context.Context, a *attempt) error {
	stream, err := a.rpc.WatchUsers(ctx, &userv1.WatchUsersRequest{
		Filter: m.options.Filter, ShowDeleted: m.options.ShowDeleted, Fields: m.options.Fields,
		AfterActivityId: m.resume.number, Epoch: m.resume.epoch, Progress: true,
	})
	if err != nil {
		return err
	}
	defer func() { _ = stream.Close() }()
	defer m.connected(false)
	for a.receive(ctx, stream.Receive) {
		changes, watchers := m.apply(stream.Msg())
		for _, change := range changes {
			for _, w := range watchers {
				w.onChange(change)
			}
		}
	}
	err = stream.Err()
	if err == nil {
		return errEarlyEnd
	}
	if errors.Is(newError("WatchUsers", 1, err), ErrPositionOutOfRange) && m.resume != (position{}) {
		m.restart()
		return errEarlyEnd
	}
	return err
}

// restart fetches all users again with the next stream.
func (m *Mirror) restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.resume, m.next = position{}, newCopyOfUsers()
}

func (m *Mirror) connected(yes bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.status.Connected = yes
}

// apply applies a message, and returns the changes of the copy for the watchers.
func (m *Mirror) apply(message *userv1.WatchUsersResponse) ([]MirrorChange, []*mirrorWatcher) {
	m.mu.Lock()
	defer m.mu.Unlock()
	target := m.current
	if m.next != nil {
		target = m.next
	}
	var changes []MirrorChange
	if id := message.GetUserId(); id != 0 {
		change := target.set(id, message.GetUser())
		if m.next == nil && (change.Before != nil || change.After != nil) {
			changes = append(changes, change)
		}
	}
	if message.GetSynced() {
		if m.next != nil {
			changes = m.next.differences(m.current)
			m.current, m.next = m.next, nil
		}
		m.status.Connected = true
		if !m.status.Ready {
			m.status.Ready = true
			close(m.ready)
		}
	}
	m.resume.number = message.GetActivityId()
	if message.GetEpoch() != "" {
		m.resume.epoch = message.GetEpoch()
	}
	m.status.Received = time.Now()
	if m.next == nil {
		m.status.Position, m.status.Epoch = m.resume.number, m.resume.epoch
		for _, w := range m.waiters {
			if w.position <= m.status.Position {
				closeOnce(w)
			}
		}
	}
	return changes, m.watchers
}

// closeOnce wakes a waiter, which removes itself later.
func closeOnce(w *mirrorWaiter) {
	select {
	case <-w.reached:
	default:
		close(w.reached)
	}
}

// copyOfUsers is a set of users with its indexes.
type copyOfUsers struct {
	users     map[int64]*userv1.User
	usernames map[string]int64
	emails    map[string]int64
}

func newCopyOfUsers() *copyOfUsers {
	return &copyOfUsers{users: make(map[int64]*userv1.User), usernames: make(map[string]int64), emails: make(map[string]int64)}
}

// set replaces a user, or removes it if u is nil.
func (c *copyOfUsers) set(id int64, u *userv1.User) MirrorChange {
	before := c.users[id]
	if before != nil {
		unindex(c.usernames, usernameKey, before.GetUsername(), id)
		unindex(c.emails, emailKey, before.GetEmail(), id)
	}
	if u == nil {
		delete(c.users, id)
	} else {
		c.users[id] = u
		index(c.usernames, usernameKey, u.GetUsername(), id)
		index(c.emails, emailKey, u.GetEmail(), id)
	}
	return MirrorChange{UserID: id, Before: before, After: u}
}

func index(ids map[string]int64, normal func(string) (string, bool), name string, id int64) {
	if key, ok := normal(name); ok && name != "" {
		ids[key] = id
	}
}

// unindex keeps an entry that has passed to another user, whose change came first.
func unindex(ids map[string]int64, normal func(string) (string, bool), name string, id int64) {
	if key, ok := normal(name); ok && ids[key] == id {
		delete(ids, key)
	}
}

// differences returns the changes from an earlier copy.
func (c *copyOfUsers) differences(before *copyOfUsers) []MirrorChange {
	var changes []MirrorChange
	for id, u := range c.users {
		if old := before.users[id]; old == nil || !proto.Equal(old, u) {
			changes = append(changes, MirrorChange{UserID: id, Before: before.users[id], After: u})
		}
	}
	for id, old := range before.users {
		if c.users[id] == nil {
			changes = append(changes, MirrorChange{UserID: id, Before: old})
		}
	}
	return changes
}
