package user_test

import (
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

func recorded(t failer, what map[string]string, by user.Author) map[string]string {
	t.Helper()
	d, err := (&user.Record{ID: 7, Action: "app.noted", Details: what}).Decide(ann(), stamp, by)
	if err != nil || len(d.Rows) != 1 {
		t.Errorf("Decide() = %+v, %v, want one row", d, err)
		return nil
	}
	return d.Rows[0].Details
}

func sizeOf(details map[string]string) int {
	n := 0
	for key, value := range details {
		n += len(key) + len(value)
	}
	return n
}

func TestFittingDetailsAreNotTruncated(t *testing.T) {
	value := strings.Repeat("x", user.MaxDetails-len("k"))
	got := recorded(t, map[string]string{"k": value}, user.Author{})
	if got["k"] != value {
		t.Errorf("details[k] has %[2]d bytes, want %[1]d", len(value), len(got["k"]))
	}
}

func TestLongestDetailsAreTruncated(t *testing.T) {
	got := recorded(t, map[string]string{
		"a": strings.Repeat("ä", 2000), "b": strings.Repeat("b", 4000), "c": "short",
	}, user.Author{Actor: "alice"})
	if got["c"] != "short" || got["actor"] != "alice" {
		t.Errorf("short values = %q, %q, want them unchanged", got["c"], got["actor"])
	}
	for _, key := range []string{"a", "b"} {
		if !strings.HasSuffix(got[key], user.TruncatedMark) || len(got[key]) < 2000 {
			t.Errorf("details[%s] has %d bytes and ends in %q, want a truncated value", key, len(got[key]), got[key][max(0, len(got[key])-8):])
		}
	}
	if size := sizeOf(got); size > user.MaxDetails || size < user.MaxDetails-8 {
		t.Errorf("size of details = %d, want about %d", size, user.MaxDetails)
	}
}

func TestSurplusKeysAreDropped(t *testing.T) {
	what := make(map[string]string)
	for i := range 200 {
		what[strings.Repeat("k", 60)+strconv.Itoa(1000+i)] = "value"
	}
	got := recorded(t, what, user.Author{Actor: "alice", RequestID: "r1"})
	left, err := strconv.Atoi(got["left_out"])
	if err != nil || left+len(got) != 200+3 {
		t.Errorf("details have %d of 200 keys and left_out %q", len(got), got["left_out"])
	}
	if got["actor"] != "alice" || got["request_id"] != "r1" {
		t.Errorf("actor, request_id = %q, %q, want both kept", got["actor"], got["request_id"])
	}
	const one = 64 + len("value")
	if size := sizeOf(got); size > user.MaxDetails || size+one <= user.MaxDetails-len("00") {
		t.Errorf("size of details = %d, want at most %d and within %d of it", size, user.MaxDetails, one)
	}
}

// Keys that just fit are kept with truncated values.
func TestFittingKeysAreKept(t *testing.T) {
	const keys = 32
	what := make(map[string]string)
	for i := range keys {
		what[strings.Repeat("k", user.MaxDetails/keys-len(user.TruncatedMark)-2)+strconv.Itoa(10+i)] = strings.Repeat("v", 100)
	}
	got := recorded(t, what, user.Author{})
	if len(got) != keys || got["left_out"] != "" {
		t.Errorf("details have %d keys and left_out %q, want %d keys", len(got), got["left_out"], keys)
	}
	for key, value := range got {
		if value != user.TruncatedMark {
			t.Errorf("details[%s] = %q, want %q", key, value, user.TruncatedMark)
		}
	}
}

func TestTagsInDetailsAreNotHTMLEscaped(t *testing.T) {
	op, err := user.NewCreate(user.User{Username: "ann", Email: "ann@example.org", Tags: []string{"<a&b>", `"`}})
	if err != nil {
		t.Fatal(err)
	}
	d, _ := op.Decide(nil, stamp, by)
	if got, want := d.Rows[0].Details["new.tags"], `["<a&b>","\""]`; got != want {
		t.Errorf("details[new.tags] = %s, want %s", got, want)
	}
}

func TestDetailsAreBounded(t *testing.T) {
	key := rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}`), rapid.StringMatching(`[a-zä€]{50,64}`))
	value := rapid.Custom(func(t *rapid.T) string {
		part := rapid.StringMatching(`[a-zä€𝄞]{0,12}`).Draw(t, "part")
		return strings.Repeat(part, rapid.IntRange(0, 90).Draw(t, "times"))
	})
	rapid.Check(t, func(t *rapid.T) {
		what := rapid.MapOfN(key, value, 0, 64).Draw(t, "details")
		by := user.Author{Actor: rapid.StringMatching(`[a-z]{0,200}`).Draw(t, "actor")}
		want := len(what)
		if by.Actor != "" {
			want++
		}
		got := recorded(t, what, by)
		if size := sizeOf(got); size > user.MaxDetails {
			t.Errorf("size of details = %d, want at most %d", size, user.MaxDetails)
		}
		for k, v := range got {
			if !utf8.ValidString(v) {
				t.Errorf("details[%s] is not valid UTF-8", k)
			}
			original, ok := what[k]
			if !ok || v == original {
				continue
			}
			if begin, cut := strings.CutSuffix(v, user.TruncatedMark); !cut || !strings.HasPrefix(original, begin) {
				t.Errorf("details[%[1]s] = %[3]q, want a prefix of %[2]q", k, original, v)
			}
		}
		if _, left := got["left_out"]; !left && len(got) != want {
			t.Errorf("details have %d of %d keys without left_out", len(got), want)
		}
	})
}
