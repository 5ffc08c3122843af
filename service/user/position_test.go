package user_test

import (
	"testing"

	"github.com/yourorg/userservice/service/user"
)

func TestParsePosition(t *testing.T) {
	for _, want := range []string{"e", "e:p"} {
		text := user.FormatPosition(want, 7)
		if epoch, position, ok := user.ParsePosition(text); epoch != want || position != 7 || !ok {
			t.Errorf("ParsePosition(%q) = %q, %d, %v, want %q, 7, true", text, epoch, position, ok, want)
		}
	}
	if epoch, position, ok := user.ParsePosition("e:0"); epoch != "e" || position != 0 || !ok {
		t.Errorf("ParsePosition(e:0) = %q, %d, %v, want e, 0, true", epoch, position, ok)
	}
	for _, text := range []string{"", "7", ":7", "e:", "e:x", "e:-1", "e:9223372036854775808", "e:7:"} {
		if epoch, position, ok := user.ParsePosition(text); ok {
			t.Errorf("ParsePosition(%q) = %q, %d, true, want false", text, epoch, position)
		}
	}
}
