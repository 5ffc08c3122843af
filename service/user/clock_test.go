package user_test

import (
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

// The clock was ahead, so the log time does not advance. Status times and purge times follow
// the clock; irreversible decisions wait for Earliest.
func TestDecisionsAfterClockWentBack(t *testing.T) {
	clock := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	ahead := clock.AddDate(64, 0, 0)
	stamp := user.CommitStamp{LogTime: ahead, Clock: clock, Earliest: clock.Add(-time.Hour), NextPosition: 7}
	u := &user.User{
		ID: 1, Username: "anna", Email: "anna@example.org", Status: user.StatusActive, Version: 1,
		StatusTime: clock.Add(-time.Minute), StatusPosition: 1, CreatedAt: ahead, UpdatedAt: ahead,
	}
	poisoned := *u
	poisoned.StatusTime = ahead // set while the clock was ahead
	set := func(cur *user.User, at time.Time) (*user.User, error) {
		d, err := (&user.SetStatus{ID: 1, Status: user.StatusInactive, Time: at}).Decide(cur, stamp, user.Author{})
		return d.User, err
	}
	for name, row := range map[string]struct {
		cur  *user.User
		at   time.Time
		want time.Time // status time after the op; zero: error
	}{
		"device time":                       {u, clock, clock},
		"no time":                           {u, time.Time{}, clock},
		"older":                             {u, clock.Add(-time.Hour), u.StatusTime},
		"a minute ahead":                    {u, clock.Add(time.Minute), clock.Add(time.Minute)},
		"more than a minute ahead":          {u, clock.Add(time.Minute + time.Second), time.Time{}},
		"as far ahead as the log":           {u, ahead, time.Time{}},
		"stored in the future, device time": {&poisoned, clock, clock},
		"stored in the future, older device time": {&poisoned, clock.Add(-time.Hour), clock.Add(-time.Hour)},
		"stored in the future, no time":           {&poisoned, time.Time{}, clock},
		"stored in the future, more than ahead":   {&poisoned, clock.Add(time.Hour), time.Time{}},
	} {
		got, err := set(row.cur, row.at)
		if row.want.IsZero() != (err != nil) || err == nil && !got.StatusTime.Equal(row.want) {
			t.Errorf("%s: SetStatus = %v, %v, want status time %v", name, got, err, row.want)
		}
	}
	status := user.StatusInactive
	d, err := (&user.Update{ID: 1, Patch: user.NewPatch(user.User{Status: status})}).Decide(&poisoned, stamp, user.Author{})
	if err != nil || !d.User.StatusTime.Equal(clock) {
		t.Errorf("Update = %+v, %v, want the status time %v", d.User, err, clock)
	}
	d, err = (&user.Delete{ID: 1, Retention: time.Hour}).Decide(u, stamp, user.Author{})
	if err != nil || !d.User.PurgeAt.Equal(clock.Add(time.Hour)) {
		t.Errorf("Delete = %+v, %v, want purge time %v", d.User, err, clock.Add(time.Hour))
	}
	deleted := d.User
	deleted.PurgeAt = clock.Add(-time.Minute) // before Clock, after Earliest
	if _, err := (&user.Purge{ID: 1}).Decide(deleted, stamp, user.Author{}); err == nil {
		t.Error("Purge before Earliest = nil, want an error")
	}
	if _, err := (&user.Undelete{ID: 1}).Decide(deleted, stamp, user.Author{}); err != nil {
		t.Errorf("Undelete before Earliest = %v, want nil", err)
	}
	stamp.Earliest = clock
	if _, err := (&user.Purge{ID: 1}).Decide(deleted, stamp, user.Author{}); err != nil {
		t.Errorf("Purge = %v, want nil", err)
	}
}
