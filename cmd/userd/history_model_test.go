package main_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/anishathalye/porcupine"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
)

// userState is the state of a user in the model.
type userState struct {
	exists  bool
	version int64
	email   string
	status  userv1.UserStatus
	deleted bool
}

// userCall is a call that reads or writes a user.
type userCall struct {
	user    int
	kind    string // create, get, update, status, delete or undelete
	email   string
	status  userv1.UserStatus
	version int64 // expected version; 0: any
}

// userResult is the result of a call: the state after it, or the reason of its failure.
type userResult struct {
	unknown bool
	reason  string
	state   userState
}

// userModel is the specification of a user. A call with unknown outcome takes effect at any later time: at the end of the
// history if it has none.
var userModel = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		users := make([][]porcupine.Operation, historyUsers)
		for _, op := range history {
			n := op.Input.(userCall).user //nolint:errcheck // no others are recorded
			users[n] = append(users[n], op)
		}
		return users
	},
	Init: func() any { return userState{} },
	Step: func(state, input, output any) (bool, any) {
		before, call, result := state.(userState), input.(userCall), output.(userResult) //nolint:errcheck // no others are recorded
		after, reason := call.apply(before)
		switch {
		case result.unknown:
			return true, after
		case reason != "" || result.reason != "":
			return reason == result.reason, after
		case call.kind == "status": // its response has only the status
			return after.status == result.state.status, after
		}
		return after == result.state, after
	},
}

// apply returns the state after the call, or why it fails.
func (c userCall) apply(s userState) (after userState, reason string) {
	switch {
	case c.kind == "create" && s.exists:
		return s, "USERNAME_TAKEN"
	case c.kind == "create":
		return userState{exists: true, version: 1, email: c.email, status: userv1.UserStatus_USER_STATUS_ACTIVE}, ""
	case !s.exists:
		return s, "USER_NOT_FOUND"
	case c.kind == "get":
		return s, ""
	case c.kind == "undelete" && !s.deleted:
		return s, "USER_NOT_DELETED"
	case c.kind != "undelete" && s.deleted:
		return s, "USER_DELETED"
	case c.version != 0 && c.version != s.version:
		return s, "ETAG_MISMATCH"
	}
	after = s
	switch c.kind {
	case "update":
		after.email = c.email
	case "status":
		after.status = c.status
	default:
		after.deleted = c.kind == "delete"
	}
	if after != s {
		after.version++
	}
	return after, ""
}

// The model finds a lost update, and accepts a call without a result that took effect, late, or not at all.
func TestUserModel(t *testing.T) {
	t.Parallel()
	states := make([]userState, 4)
	for i := range states {
		states[i] = userState{exists: true, version: int64(i), email: fmt.Sprint("mail", i), status: userv1.UserStatus_USER_STATUS_ACTIVE}
	}
	write := func(from, to int, result userResult) porcupine.Operation {
		c := userCall{kind: "update", email: states[to].email, version: int64(from)}
		if from == 0 {
			c.kind, c.version = "create", 0
		}
		return porcupine.Operation{Input: c, Output: result}
	}
	read := func(state int) porcupine.Operation {
		return porcupine.Operation{Input: userCall{kind: "get"}, Output: userResult{state: states[state]}}
	}
	create, unknown := write(0, 1, userResult{state: states[1]}), write(1, 2, userResult{unknown: true})
	other := states[2]
	other.email = states[3].email
	for name, test := range map[string]struct {
		operations []porcupine.Operation
		want       bool
	}{
		"updates":         {[]porcupine.Operation{create, write(1, 2, userResult{state: states[2]}), write(2, 3, userResult{state: states[3]}), read(3)}, true},
		"lost update":     {[]porcupine.Operation{create, write(1, 2, userResult{state: states[2]}), write(1, 3, userResult{state: other})}, false},
		"stale read":      {[]porcupine.Operation{create, write(1, 2, userResult{state: states[2]}), read(1)}, false},
		"unknown, done":   {[]porcupine.Operation{create, unknown, read(2)}, true},
		"unknown, late":   {[]porcupine.Operation{create, unknown, read(1), read(2)}, true},
		"unknown, never":  {[]porcupine.Operation{create, unknown, read(1), write(1, 2, userResult{state: states[2]})}, true},
		"unknown, undone": {[]porcupine.Operation{create, unknown, read(2), read(1)}, false},
	} {
		for i := range test.operations { // one after another, except calls without a result, which never return
			op := &test.operations[i]
			op.Call, op.Return = int64(2*i), int64(2*i+1)
			if op.Output.(userResult).unknown { //nolint:errcheck // of this test
				op.Return = math.MaxInt64
			}
		}
		if got := porcupine.CheckOperations(userModel, test.operations); got != test.want {
			t.Errorf("%s: linearizable = %t, want %t", name, got, test.want)
		}
	}
}
