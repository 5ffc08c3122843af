package service_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/gen/user/v1/userv1connect"
	"github.com/yourorg/userservice/service/user"
)

// statusHistory holds the state that each position had for the consumers of a test.
type statusHistory struct {
	t      *testing.T
	mu     sync.Mutex
	states map[int64]string
}

// consumer checks the updates of one stream.
type consumer struct {
	all  *statusHistory
	name string
	last map[int64]*userv1.UserStatusUpdate // by user
}

func (s *statusHistory) consumer(name string) *consumer {
	return &consumer{all: s, name: name, last: make(map[int64]*userv1.UserStatusUpdate)}
}

// check checks an update. Only a response may repeat a position.
func (c *consumer) check(u *userv1.UserStatusUpdate) {
	if u.GetUserId() == 0 || u.GetActivityId() == 0 || u.GetProgress() {
		return
	}
	state := fmt.Sprint(u.GetUserId(), u.GetStatus(), u.GetError().GetCode())
	c.all.mu.Lock()
	defer c.all.mu.Unlock()
	if known, ok := c.all.states[u.GetActivityId()]; ok && known != state {
		c.all.t.Errorf("%s: position %d = %q, want %q as for another consumer", c.name, u.GetActivityId(), state, known)
	}
	c.all.states[u.GetActivityId()] = state
	if last := c.last[u.GetUserId()]; last != nil {
		isChange := u.GetClientSeq() == 0
		switch before, now := last.GetActivityId(), u.GetActivityId(); {
		case now < before, now == before && isChange:
			c.all.t.Errorf("%s: user %d: position %d after %d", c.name, u.GetUserId(), now, before)
		case now == before && u.GetTimestamp().AsTime().Before(last.GetTimestamp().AsTime()):
			c.all.t.Errorf("%s: user %d: older time at position %d", c.name, u.GetUserId(), now)
		}
	}
	c.last[u.GetUserId()] = u
}

// With concurrent writes, each position has one state on all kinds of streams, and no stream
// delivers an older status of a user.
func TestConsumersAgreeOnEachPosition(t *testing.T) {
	const users, writers, writes, streams = 6, 4, 300, 3
	r := newRig(t)
	client := r.client(t)
	var ids []int64
	for i := range users {
		ids = append(ids, r.create(t, fmt.Sprintf("user-%d", i)).GetUserId())
	}
	history := &statusHistory{t: t, states: make(map[int64]string)}
	var writing, reading sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			random := rand.New(rand.NewPCG(uint64(w), 1))
			for range writes {
				id := ids[random.IntN(users)]
				switch random.IntN(8) {
				case 0:
					_, _ = r.DeleteUser(t.Context(), &userv1.DeleteUserRequest{UserId: id}) // may be deleted already
				case 1, 2:
					_, _ = r.UndeleteUser(t.Context(), &userv1.UndeleteUserRequest{UserId: id}) // may not be deleted
				default:
					_, _ = r.UpdateUserStatus(t.Context(), &userv1.UpdateUserStatusRequest{ // may be deleted
						UserId: id, Status: userv1.UserStatus(1 + random.IntN(3)),
					})
				}
			}
		})
	}
	for n := range streams {
		reading.Go(func() {
			for drained := false; !drained; { // each stream begins with a catch-up while others write
				drained = watchSome(t, client, history.consumer(fmt.Sprintf("watch %d", n)), int64(n+1))
			}
		})
		s := r.sync(t)
		reading.Go(func() { syncStatuses(s, history.consumer(fmt.Sprintf("sync %d", n)), ids, uint64(n)) })
	}
	writing.Wait()
	r.feed.Drain()
	reading.Wait()
	if len(history.states) < users {
		t.Errorf("only %d positions received", len(history.states))
	}
}

// watchSome watches all users until it has read some changes or the server drains.
func watchSome(t *testing.T, client userv1connect.UserServiceClient, c *consumer, after int64) (drained bool) {
	stream, err := client.WatchUserStatus(t.Context(), &userv1.WatchUserStatusRequest{All: true, AfterActivityId: after})
	if err != nil {
		t.Error(err)
		return true
	}
	defer func() { _ = stream.Close() }()
	for range 20 {
		if !stream.Receive() {
			if reasonOf(t, stream.Err()) != user.ServerDraining {
				t.Errorf("%s: stream error = %v", c.name, stream.Err())
			}
			return true
		}
		c.check(stream.Msg())
	}
	return false
}

// syncStatuses subscribes, sets and subscribes to all users in turn until the drain.
func syncStatuses(s *syncing, c *consumer, ids []int64, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		for seq := int64(1); seq < 400; seq++ {
			update := &userv1.UserStatusUpdate{UserId: ids[random.IntN(len(ids))], ClientSeq: seq}
			switch random.IntN(20) {
			case 0:
				update.UserId = 0
			case 1, 2, 3, 4, 5, 6, 7, 8:
				update.Status = userv1.UserStatus(1 + random.IntN(3))
			}
			if s.stream.Send(update) != nil {
				return // the drain
			}
		}
	})
	for {
		update, err := s.stream.Receive()
		if err != nil {
			return
		}
		c.check(update)
	}
}
