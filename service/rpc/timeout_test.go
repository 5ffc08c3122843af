package rpc

import (
	"testing"
	"time"
)

func TestTimeouts(t *testing.T) {
	for _, row := range []struct {
		parse func(string) (time.Duration, bool)
		text  string
		want  time.Duration // 0: none
	}{
		{grpcTimeout, "1n", time.Nanosecond},
		{grpcTimeout, "2u", 2 * time.Microsecond},
		{grpcTimeout, "3m", 3 * time.Millisecond},
		{grpcTimeout, "4S", 4 * time.Second},
		{grpcTimeout, "5M", 5 * time.Minute},
		{grpcTimeout, "99999999n", 99999999 * time.Nanosecond},
		{grpcTimeout, "100000000n", 0},
		{grpcTimeout, "1H", 0},
		{grpcTimeout, "aS", 0},
		{grpcTimeout, "S", 0},
		{connectTimeout, "7", 7 * time.Millisecond},
		{connectTimeout, "9999999999", 9999999999 * time.Millisecond},
		{connectTimeout, "10000000000", 0},
		{connectTimeout, "a", 0},
	} {
		got, ok := row.parse(row.text)
		if ok != (row.want != 0) || ok && got != row.want {
			t.Errorf("timeout %q = %v, %t, want %v", row.text, got, ok, row.want)
		}
	}
}
