package main_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// entry is the state of a user in a mirror and in the log.
type entry struct {
	name    string
	status  userv1.UserStatus
	deleted bool
}

// mirror is a client with a copy of the matching users.
type mirror struct {
	run     *watchRun
	filter  string
	matches func(entry) bool
	deleted bool // show deleted users
	random  *rand.Rand

	copy     map[int64]entry
	position int64
	epoch    string
	streams  int
	synced   []snapshot
	ended    bool // received one of the last users
}

// snapshot is a copy at a position.
type snapshot struct {
	position int64
	copy     map[int64]entry
}

func newMirrors(r *watchRun) (mirrors []*mirror) {
	active := userv1.UserStatus_USER_STATUS_ACTIVE
	for _, deleted := range []bool{false, true} {
		for _, f := range []struct {
			filter  string
			matches func(entry) bool
		}{
			{"", func(entry) bool { return true }},
			{"status = ACTIVE", func(e entry) bool { return e.status == active }},
			{`username = "a*"`, func(e entry) bool { return e.name[0] == 'a' }},
			{`NOT username = "b*"`, func(e entry) bool { return e.name[0] != 'b' }},
		} {
			mirrors = append(mirrors, &mirror{
				run: r, filter: f.filter, matches: f.matches, deleted: deleted, copy: map[int64]entry{},
				random: rand.New(rand.NewPCG(r.seed, uint64(1000+len(mirrors)))),
			})
		}
	}
	return mirrors
}

// read opens streams, each after the last message received.
func (m *mirror) read(ctx context.Context, t testing.TB) error {
	p := m.run.process()
	for {
		done, err := m.stream(ctx, p.client(t, 1<<16))
		if done {
			return nil
		}
		if err != nil && !broken(err) {
			return err
		}
		if p, err = m.run.after(ctx, p); err != nil {
			return err
		}
	}
}

// stream reads until one of the last users and once synced, until the stream fails, or cancels it at random.
func (m *mirror) stream(ctx context.Context, client userv1connect.UserServiceClient) (done bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.WatchUsers(ctx, &userv1.WatchUsersRequest{
		Filter: m.filter, ShowDeleted: m.deleted, AfterActivityId: m.position, Epoch: m.epoch, Progress: m.random.IntN(2) == 0,
	})
	if err != nil {
		return false, err
	}
	m.streams++
	breakOff := 1 + m.random.IntN([]int{100, 4000, 4000, 4000}[m.random.IntN(4)])
	for range breakOff {
		if !stream.Receive() {
			return false, stream.Err()
		}
		if done, err := m.receive(stream.Msg()); done || err != nil {
			return done, err
		}
		if m.random.IntN(2000) == 0 { // stall until the buffers are full
			if err := m.run.waitWritten(ctx, m.run.written.Load()+m.run.changes/8); err != nil {
				return false, err
			}
		}
	}
	return false, nil
}

// receive applies a message to the copy.
func (m *mirror) receive(msg *userv1.WatchUsersResponse) (done bool, err error) {
	if msg.GetEpoch() != "" {
		m.epoch = msg.GetEpoch()
	}
	change := msg.GetUser() != nil || msg.GetRemoved()
	if at := msg.GetActivityId(); at < m.position || change && at == m.position {
		return false, fmt.Errorf("message %v received after position %d", msg, m.position)
	}
	m.position = msg.GetActivityId()
	switch u := msg.GetUser(); {
	case u != nil:
		e := entry{u.GetUsername(), u.GetStatus(), u.GetDeletedAt() != nil}
		if !m.matches(e) || e.deleted && !m.deleted {
			return false, fmt.Errorf("user %v does not match", u)
		}
		m.copy[msg.GetUserId()] = e
		m.ended = m.ended || strings.HasPrefix(e.name, endUser)
	case msg.GetRemoved():
		delete(m.copy, msg.GetUserId())
	case msg.GetSynced():
		m.synced = append(m.synced, snapshot{m.position, maps.Clone(m.copy)})
	}
	return m.ended && len(m.synced) > 0, nil
}

// compare compares the snapshots and the final copy with the log.
func (m *mirror) compare(log *directory) error {
	if len(m.synced) == 0 {
		return errors.New("never synced")
	}
	for _, s := range append(m.synced, snapshot{m.position, m.copy}) {
		if err := m.compareAt(log, s); err != nil {
			return fmt.Errorf("copy at position %d: %w", s.position, err)
		}
	}
	return nil
}

func (m *mirror) compareAt(log *directory, s snapshot) error {
	want := map[int64]entry{}
	for id, states := range log.states {
		purged, wasPurged := log.purged[id]
		state, exists := stateAt(states, s.position)
		switch {
		case wasPurged && purged <= s.position:
		case log.redacted[id]:
			delete(s.copy, id) // the log no longer has its state
		case exists && m.matches(state) && (m.deleted || !state.deleted):
			want[id] = state
		}
	}
	for id, e := range want {
		if got, ok := s.copy[id]; !ok || got != e {
			return fmt.Errorf("user %d = %+v (%t), want %+v", id, got, ok, e)
		}
	}
	for id, e := range s.copy {
		if _, ok := want[id]; !ok {
			return fmt.Errorf("user %d = %+v, want none (purged at %d)", id, e, log.purged[id])
		}
	}
	return nil
}

// directory is the history of all users, from the log.
type directory struct {
	states   map[int64][]positioned
	purged   map[int64]int64 // position by user
	redacted map[int64]bool  // a purge has begun
}

type positioned struct {
	position int64
	entry    entry
}

func stateAt(states []positioned, position int64) (entry, bool) {
	for i := len(states) - 1; i >= 0; i-- {
		if states[i].position <= position {
			return states[i].entry, true
		}
	}
	return entry{}, false
}

func readDirectory(ctx context.Context, client userv1connect.UserServiceClient) (*directory, error) {
	d := &directory{states: map[int64][]positioned{}, purged: map[int64]int64{}, redacted: map[int64]bool{}}
	stream, err := client.StreamUserActivities(ctx, &userv1.StreamUserActivitiesRequest{ReplayOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }() // it has ended
	for stream.Receive() {
		d.add(stream.Msg())
	}
	return d, stream.Err()
}

func (d *directory) add(row *userv1.UserActivity) {
	id, details := row.GetUserId(), row.GetDetails()
	e, _ := stateAt(d.states[id], row.GetActivityId())
	switch row.GetAction() {
	case "user.purged":
		d.purged[id] = row.GetActivityId()
	case "user.deleted":
		e.deleted = true
	case "user.created":
		d.redacted[id] = details["new.username"] == user.RedactedMark
	}
	if name := details["new.username"]; name != "" {
		e.name = name
	}
	if status := details["new.status"]; status != "" {
		e.status = userv1.UserStatus(userv1.UserStatus_value[status])
	}
	d.states[id] = append(d.states[id], positioned{row.GetActivityId(), e})
}
