package server

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The order of the chain is a decision, see chain. Whoever changes it changes this,
// too; what each place is good for has its test where it shows: a panic becomes an
// answer and a log line, a refusal carries a position.
func TestOrderOfTheChain(t *testing.T) {
	want := []string{
		"*intercept.Log", "*intercept.Errors", "intercept.Recover", "*intercept.Authorize", "intercept.Expiry",
		"*intercept.Deadline", "*intercept.Position", "*intercept.Validate",
	}
	var got []string
	for _, interceptor := range chain(slog.New(slog.DiscardHandler), nopStore{}, nil, nil, nil) {
		got = append(got, fmt.Sprintf("%T", interceptor))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
