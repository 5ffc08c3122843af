package encoding

import (
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/user"
)

// The newest state is restored from differences and an earlier whole user.
func TestStates(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		last := drawUser(r)
		stored := [][]byte{EncodeResult(Result{User: last})}
		for range rapid.IntRange(0, 4).Draw(r, "differences") {
			next := drawUser(r)
			stored, last = append(stored, EncodeResult(Result{Difference: NewDifference(last, next)})), next
		}
		var s States
		for i := len(stored) - 1; i >= 0; i-- {
			if _, err := s.User(); !errors.Is(err, ErrEncoding) {
				r.Fatalf("User() without the whole user = %v, want ErrEncoding", err)
			}
			more, err := s.Add(stored[i])
			if err != nil || more != (i > 0) {
				r.Fatalf("Add(state %d) = %t, %v, want %t", i, more, err, i > 0)
			}
		}
		if got, err := s.User(); err != nil || !got.Equal(last, ^user.FieldSet(0)) {
			r.Errorf("User() = %+v, %v, want %+v", got, err, last)
		}
	})
}

func TestInvalidStatesAreErrors(t *testing.T) {
	var s States
	if more, err := s.Add([]byte{formResult, 0xff}); err == nil || more {
		t.Errorf("Add(invalid bytes) = %t, %v, want an error", more, err)
	}
	for name, d := range map[string]Difference{"removed": {removed: []byte{0xff}}, "set": {set: []byte{0xff}}} {
		if err := d.Apply(storedAnne()); err == nil {
			t.Errorf("Apply with invalid bytes in %s succeeded", name)
		}
		s := States{differences: []*Difference{&d}, whole: storedAnne()}
		if u, err := s.User(); err == nil || u != nil {
			t.Errorf("User() with invalid bytes in %s = %+v, want an error", name, u)
		}
	}
}

func TestInvalidResultsAreErrors(t *testing.T) {
	for name, encoded := range map[string][]byte{
		"nothing": nil, "unknown form": {'Z'}, "shared without a user": appendNumber([]byte{formResult}, resultShared, 1),
		"invalid user":          appendBytes([]byte{formResult}, resultUser, []byte{0xff}),
		"invalid entry":         appendBytes([]byte{formResult}, resultUser, appendBytes(nil, user.FieldByName("metadata").Number, []byte{0xff})),
		"cut user":              appendBytes([]byte{formResult}, resultUser, encodeUser(storedAnne()))[:10],
		"old, shared, cut":      fromHex(t, oldShared[:len(oldShared)-2]),
		"old, invalid tags":     fromHex(t, strings.Replace(oldResult, "074c02", "075a02", 1)),
		"old, invalid metadata": fromHex(t, strings.Replace(oldResult, "124d02", "125a02", 1)),
	} {
		if got, err := DecodeResult(encoded); err == nil {
			t.Errorf("%s: DecodeResult() = %+v, want an error", name, got)
		}
	}
	old := fromHex(t, oldResult)
	const withoutUser = 5
	for n := range old {
		if got, err := DecodeResult(old[:n]); (err == nil) != (n == withoutUser) {
			t.Errorf("DecodeResult of %d of %d bytes = %+v, %v, want success of %d only", n, len(old), got, err, withoutUser)
		}
	}
}

// A shared result is stored without the fields that its user shares.
func TestSharedResultsAreSmall(t *testing.T) {
	shared := Result{Outcome: user.OutcomeUpdated, Position: 42, First: 41, Rows: 2, User: storedAnne(), Shared: true}
	if got := hex.EncodeToString(EncodeResult(shared)); got != nowShared {
		t.Errorf("EncodeResult(shared result with a whole user) = %s, want %s", got, nowShared)
	}
}

func TestMicros(t *testing.T) {
	if got := ToMicros(time.Time{}); got != noTime {
		t.Errorf("ToMicros(zero time) = %d, want %d", got, int64(noTime))
	}
	for _, want := range []time.Time{{}, time.Unix(0, 0).UTC(), time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)} {
		if got := FromMicros(ToMicros(want)); !got.Equal(want) || got.IsZero() != want.IsZero() {
			t.Errorf("FromMicros(ToMicros(%v)) = %v", want, got)
		}
	}
	if got := ToMicros(time.Unix(1, 2000)); got != 1_000_002 {
		t.Errorf("ToMicros(1.000002 s) = %d, want 1000002", got)
	}
}
