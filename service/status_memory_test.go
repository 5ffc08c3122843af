package service_test

import (
	"slices"
	"testing"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/budget"
)

// A stream has memory for its users, however often subscriptions fail.
func TestSyncReservesMemoryOfItsUsers(t *testing.T) {
	r := newRig(t)
	r.memory = new(budget.Reservation)
	r.memory.Open(budget.New(budget.Options{Limit: 1 << 30}), nil, budget.Known, "caller")
	s := r.sync(t)
	exchange := func(messages ...*userv1.UserStatusUpdate) int64 {
		t.Helper()
		for _, message := range messages {
			s.send(message)
		}
		for range messages {
			s.receive()
		}
		return r.memory.Held(budget.Subscription)
	}
	follow := func(id int64) *userv1.UserStatusUpdate { return &userv1.UserStatusUpdate{UserId: id} }
	one := exchange(follow(r.create(t, "ann").GetUserId()))
	if one == 0 {
		t.Fatal("no memory is reserved for a user")
	}
	two := exchange(follow(r.create(t, "bob").GetUserId()))
	if two != 2*one {
		t.Errorf("reserved for two users = %d, want %d", two, 2*one)
	}
	if got := exchange(slices.Repeat([]*userv1.UserStatusUpdate{follow(4711)}, 20)...); got < two {
		t.Errorf("reserved after follows of an unknown user = %d, want at least %d", got, two)
	}
	unknown := make([]*userv1.UserStatusUpdate, 20)
	for i := range unknown {
		unknown[i] = follow(int64(1000 + i))
	}
	// A subscription to all users keeps their positions.
	if got := exchange(append([]*userv1.UserStatusUpdate{{}}, unknown...)...); got < 20*one {
		t.Errorf("reserved after follows of 20 unknown users and all = %d, want at least %d", got, 20*one)
	}
	s.end()
}
