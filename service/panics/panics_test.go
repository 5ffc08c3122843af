package panics_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/panics"
)

func TestCatch(t *testing.T) {
	err := fmt.Errorf("read: %w", panics.Catch(plant))
	if got, want := err.Error(), "read: panic: planted"; got != want {
		t.Errorf("Catch() = %q, want %q", got, want)
	}
	if got := panics.Stack(err); !strings.Contains(got, "panics_test.plant") {
		t.Errorf("Stack() = %s, want the function that panicked", got)
	}
	plain := errors.New("no panic")
	if got := panics.Catch(func() error { return plain }); got != plain { //nolint:errorlint // identity
		t.Errorf("Catch() = %v, want %v", got, plain)
	}
	if got := panics.Stack(plain); got != "" {
		t.Errorf("Stack() = %q, want none", got)
	}
	if err := panics.Catch(func() error { return nil }); err != nil {
		t.Errorf("Catch() = %v, want nil", err)
	}
}

func plant() error { panic("planted") }
