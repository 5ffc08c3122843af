package limits

import "testing"

func TestConnectionLimitWithinOpenFiles(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		files       uint64
		asked, want int
	}{
		{1 << 20, 10_000, 10_000},
		{1024, 10_000, 1024 - reservedFiles},
		{1024, 1024 - reservedFiles, 1024 - reservedFiles},
		{1024, 0, 1024 - reservedFiles},
		{64, 10_000, 16},
		{^uint64(0), 10_000, 10_000},
		{^uint64(0), 0, 1<<31 - 1},
		{0, 10_000, 10_000},
		{0, 0, 0},
	} {
		if got := connectionsWithin(test.files, test.asked); got != test.want {
			t.Errorf("connectionsWithin(%d, %d) = %d, want %d", test.files, test.asked, got, test.want)
		}
	}
}
