package user_test

import (
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/yourorg/userservice/service/user"
)

func TestWithholdDetails(t *testing.T) {
	in := map[string]string{
		"old.username": "Ann", "new.username": "Anna", "new.email": "a@example.org", "old.tags": "[]",
		"old.metadata.plan": "gold", "new.metadata.plan": "silver", "new.metadata": "app",
		"old.status": "USER_STATUS_ACTIVE", "new.deleted_at": "2026-01-01T00:00:00Z",
		"actor": "root", "username": "an application's own", "old.emails": "too", "new.": "", "metadata.plan": "too",
		"app.username": "too", "new.username.first": "too",
	}
	before := maps.Clone(in)
	want := map[string]string{
		"old.username": user.WithheldMark, "new.username": user.WithheldMark, "new.email": user.WithheldMark,
		"old.tags": user.WithheldMark, "old.metadata": user.WithheldMark, "new.metadata": user.WithheldMark,
		"old.status": "USER_STATUS_ACTIVE", "new.deleted_at": "2026-01-01T00:00:00Z",
		"actor": "root", "username": "an application's own", "old.emails": "too", "new.": "", "metadata.plan": "too",
		"app.username": "too", "new.username.first": "too",
	}
	if got := user.WithholdDetails(in); !maps.Equal(got, want) {
		t.Errorf("WithholdDetails() = %v, want %v", got, want)
	}
	if !maps.Equal(in, before) {
		t.Errorf("WithholdDetails() modified its argument: %v", in)
	}
	if got := user.RedactDetails(nil); got != nil {
		t.Errorf("RedactDetails(nil) = %v, want nil", got)
	}
}

func TestSizes(t *testing.T) {
	u := ann()
	size := u.Size()
	u.Tags, u.Metadata = append(u.Tags, strings.Repeat("t", 60)), map[string]string{"team": "red", "k": strings.Repeat("v", 1000)}
	if got := u.Size() - size; got < 1060 || got > 1100 {
		t.Errorf("Size() grows by %d for a tag of 60 bytes and an entry of 1001", got)
	}
	a := user.Activity{Details: map[string]string{"key": "value", "k": ""}}
	if got := a.DetailBytes(); got != 9 {
		t.Errorf("DetailBytes() = %d, want 9", got)
	}
}

func TestCloneIsDeep(t *testing.T) {
	u := ann()
	c := u.Clone()
	c.Tags[0], c.Metadata["team"] = "other", "other"
	if u.Tags[0] != "vip" || u.Metadata["team"] != "red" {
		t.Errorf("changing the clone changed the user: %v, %v", u.Tags, u.Metadata)
	}
}

func TestSummaryHasNoLists(t *testing.T) {
	u := ann()
	summary := u.Summary()
	if summary.Tags != nil || summary.Metadata != nil || summary.Username != u.Username || summary.Version != u.Version {
		t.Errorf("Summary() = %+v, want the user without tags and metadata", summary)
	}
	if u.Tags == nil || u.Metadata == nil {
		t.Error("Summary() modified the user")
	}
	if got := (*user.User)(nil).Summary(); got != nil {
		t.Errorf("Summary() of no user = %+v, want nil", got)
	}
	rows := []user.Activity{{Position: 1, Details: map[string]string{"key": "value"}}}
	if got := user.Summaries(rows); len(got) != 1 || got[0].Position != 1 || got[0].Details != nil || rows[0].Details == nil {
		t.Errorf("Summaries(%v) = %v, want a copy without details", rows, got)
	}
}

func TestCheckEntryKey(t *testing.T) {
	for key, valid := range map[string]bool{
		"": false, "k": true, "a.b": true, strings.Repeat("ä", user.MaxMetadataKey): true,
		strings.Repeat("ä", user.MaxMetadataKey+1): false,
	} {
		got, err := user.CheckEntryKey("metadata." + key)
		if (err == nil) != valid || valid && got != key {
			t.Errorf("CheckEntryKey(%q) = %q, %v, want %t", "metadata."+key, got, err, valid)
		}
	}
}

func TestUnsetTimeStaysUnset(t *testing.T) {
	if got := user.Truncate(time.Time{}); !got.IsZero() {
		t.Errorf("Truncate(unset) = %v, want unset", got)
	}
	if got := user.Status(4).String(); got != "USER_STATUS_4" {
		t.Errorf("Status(4) = %s, want USER_STATUS_4", got)
	}
}
