package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/servertest"
)

// Each line has a response, in order; lines that cannot be read are reported.
func TestSyncStatus(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	must(t, s, "create", "Grace Hopper", "grace@example.org")
	id := strings.Fields(must(t, s, "status", "get", "grace@example.org"))[4]
	input := "ada@example.org suspended\n\n42 active\n\tGrace Hopper  inactive \nnobody active\nada@example.org gone\nada\n" +
		`{"userId":"` + id + `","status":"USER_STATUS_ACTIVE"}` + "\nada lovelace active"
	r := userctlOn(t, s, console{in: strings.NewReader(input)}, "status", "sync")
	want := result{
		out: "<TIME-------------->  3  <USER-ID--------->  suspended\n" +
			"    42  user not found\n" +
			"<TIME-------------->  4  <USER-ID--------->  inactive\n" +
			"<TIME-------------->  5  <USER-ID--------->  active\n" +
			"<TIME-------------->  6  <USER-ID--------->  active\n",
		err: "line 5: no user has the username \"nobody\"\n" +
			"line 6: status \"gone\": must be active, inactive or suspended\n" +
			"line 7: must be a user and a status\n" +
			"userctl: 4 of 8 lines failed\n",
		status: statusFailed,
	}
	if r != want {
		t.Errorf("status sync = %+v\nwant %+v", r, want)
	}
}

// With --follow, the changes of others are shown too, also after the input.
func TestSyncStatusFollows(t *testing.T) {
	s := servertest.Start(t)
	must(t, s, "create", "Ada Lovelace", "ada@example.org")
	in, input := io.Pipe()
	sync := startOn(t, s, in, "status", "sync", "--follow")
	if _, err := fmt.Fprintln(input, "ada@example.org inactive"); err != nil {
		t.Fatal(err)
	}
	sync.out.wait(t, "inactive")
	must(t, s, "status", "set", "ada@example.org", "active")
	sync.out.wait(t, " active")
	if err := input.Close(); err != nil {
		t.Fatal(err)
	}
	must(t, s, "status", "set", "ada@example.org", "suspended")
	sync.out.wait(t, "suspended")
	want := result{out: "<TIME-------------->  2  <USER-ID--------->  inactive\n" +
		"<TIME-------------->  3  <USER-ID--------->  active\n<TIME-------------->  4  <USER-ID--------->  suspended\n"}
	if r := sync.interrupt(); r != want {
		t.Errorf("status sync --follow = %+v\nwant %+v", r, want)
	}
}
