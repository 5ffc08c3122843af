package page

import "testing"

func TestAfterPrefix(t *testing.T) {
	for prefix, want := range map[string]string{"": "\xff", "a": "b", "az": "a{", "ä": "\xc3\xa5", "a\x7f": "a\x80"} {
		if got := afterPrefix(prefix); got != want {
			t.Errorf("afterPrefix(%q) = %q, want %q", prefix, got, want)
		}
	}
}
