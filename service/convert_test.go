package service

import (
	"math"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/yourorg/userservice/service/user"
)

func TestTimeFromProto(t *testing.T) {
	for _, test := range []struct {
		name string
		ts   *timestamppb.Timestamp
		want time.Time
		bad  bool
	}{
		{name: "unset"},
		{name: "truncated", ts: &timestamppb.Timestamp{Seconds: 1, Nanos: 1999}, want: time.Unix(1, 1000).UTC()},
		{name: "before 1970", ts: &timestamppb.Timestamp{Seconds: -1, Nanos: 500_000_000}, want: time.Unix(-1, 500_000_000).UTC()},
		{name: "first instant is not unset", ts: timestamppb.New(time.Time{}), want: time.Time{}.Add(time.Microsecond)},
		{name: "last instant", ts: &timestamppb.Timestamp{Seconds: 253402300799, Nanos: 999_999_999}, want: time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC)},
		{name: "after the last instant", ts: &timestamppb.Timestamp{Seconds: 253402300800}, bad: true},
		{name: "before the first instant", ts: &timestamppb.Timestamp{Seconds: -62135596801}, bad: true},
		{name: "maximum seconds", ts: &timestamppb.Timestamp{Seconds: math.MaxInt64}, bad: true},
		{name: "negative nanoseconds", ts: &timestamppb.Timestamp{Nanos: -1}, bad: true},
		{name: "too many nanoseconds", ts: &timestamppb.Timestamp{Nanos: 1_000_000_000}, bad: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := timeFromProto("since", test.ts)
			if e, ok := user.AsError(err); ok != test.bad || ok && e.Violations[0].Field != "since" {
				t.Fatalf("timeFromProto() error = %v", err)
			}
			if !got.Equal(test.want) {
				t.Errorf("timeFromProto() = %v, want %v", got, test.want)
			}
		})
	}
}
