package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
)

// The next run continues where the last one was interrupted.
func TestFollowState(t *testing.T) {
	s := servertest.Start(t)
	state := filepath.Join(t.TempDir(), "state")
	args := []string{"activities", "--follow", "--state", state, "--exec", `sed 's/.*"action":"\([^"]*\)".*/ran \1/'`}
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	for _, action := range []string{"order.first", "order.second"} {
		must(t, s, "record", "ada@example.org", action)
		follow := start(t, s, args...)
		follow.out.wait(t, "ran "+action)
		r := follow.interrupt()
		want := map[string]string{"order.first": "stopped after 2 events at position 2\n", "order.second": "stopped after 1 events at position 3\n"}[action]
		if r.err != want || r.status != statusOK {
			t.Errorf("%s: %q, exit status %d, want %q", action, r.err, r.status, want)
		}
	}
	other := servertest.Start(t)
	must(t, other, "create", "Ada Lovelace", "ada@example.org")
	if r := userctl(t, other, args...); r.status != statusUsage || !strings.Contains(r.err, "hint: rows after this position") {
		t.Errorf("with the state of another store: exit status %d, %q, want %d and a hint", r.status, r.err, statusUsage)
	}
}

// An event whose command fails is repeated by the next run.
func TestFollowExecFails(t *testing.T) {
	s := servertest.Start(t)
	state := filepath.Join(t.TempDir(), "state")
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	must(t, s, "record", "ada@example.org", "order.first")
	r := userctl(t, s, "activities", "--follow", "--state", state, "--exec", "! grep order.first")
	if want := "userctl: --exec: exit status 1\n"; r.err != want || r.status != statusFailed {
		t.Errorf("%q, exit status %d, want %q, %d", r.err, r.status, want, statusFailed)
	}
	text, err := os.ReadFile(state)
	if err != nil || !strings.HasSuffix(string(text), `"position":1}`+"\n") {
		t.Errorf("the state is %q, %v, want position 1", text, err)
	}
}

func TestFollowFlagsNeedFollow(t *testing.T) {
	s := servertest.Start(t)
	r := userctl(t, s, "activities", "--exec", "true")
	if want := "userctl: --after, --exec and --state need --follow\n"; r.err != want || r.status != statusUsage {
		t.Errorf("%q, exit status %d, want %q, %d", r.err, r.status, want, statusUsage)
	}
}

func TestWatch(t *testing.T) {
	s := servertest.Start(t)
	state := filepath.Join(t.TempDir(), "state")
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	watch := start(t, s, "watch", "--filter", "status = ACTIVE", "--state", state)
	watch.out.wait(t, "synced")
	must(t, s, "create", "Grace Hopper", "grace@example.org")
	watch.out.wait(t, "Grace Hopper")
	must(t, s, "status", "set", "ada@example.org", "suspended")
	watch.out.wait(t, "removed")
	r := watch.interrupt()
	want := result{
		out: "1  user  <USER-ID--------->  Ada Lovelace  ada@example.org  active\n" +
			"1  synced\n" +
			"2  user  <USER-ID--------->  Grace Hopper  grace@example.org  active\n" +
			"3  removed  <USER-ID--------->\n",
		err: "stopped after 4 events at position 3\n",
	}
	if r != want {
		t.Errorf("watch = %+v, want %+v", r, want)
	}
	must(t, s, "status", "set", "ada@example.org", "active")
	watch = start(t, s, "watch", "--filter", "status = ACTIVE", "--state", state)
	watch.out.wait(t, "synced")
	want = result{
		out: "4  user  <USER-ID--------->  Ada Lovelace  ada@example.org  active\n4  synced\n",
		err: "stopped after 2 events at position 4\n",
	}
	if r := watch.interrupt(); r != want {
		t.Errorf("the second watch = %+v, want %+v", r, want)
	}
}
