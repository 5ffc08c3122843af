package user

import (
	"testing"

	"pgregory.net/rapid"
)

// The short way of formatTags has the result of the JSON encoder.
func TestFormatTags(t *testing.T) {
	t.Parallel()
	tag := rapid.OneOf(rapid.StringMatching(`[a-z]{1,8}`), rapid.String(), rapid.SampledFrom([]string{`"`, `\`, "\x7f", "\x00", "<&>", "\u2028", "\xff"}))
	rapid.Check(t, func(r *rapid.T) {
		tags := rapid.SliceOfN(tag, 1, 4).Draw(r, "tags")
		if got, want := formatTags(tags), encodeTags(tags); got != want {
			r.Errorf("formatTags(%q) = %s, want %s", tags, got, want)
		}
	})
}
