package reqinfo_test

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/yourorg/userservice/service/reqinfo"
)

type name string

func TestFrom(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	if got := reqinfo.From[name](ctx); got != "" {
		t.Errorf("From(empty context) = %q, want none", got)
	}
	ctx = reqinfo.With(ctx, name("outer"))
	ctx = reqinfo.With(ctx, "of another type")
	ctx = reqinfo.With[io.Reader](ctx, strings.NewReader("of an interface"))
	inner, cancel := context.WithCancel(reqinfo.With(ctx, name("inner")))
	defer cancel()
	if got := reqinfo.From[name](ctx); got != "outer" {
		t.Errorf("From(ctx) = %q, want outer", got)
	}
	if got := reqinfo.From[name](inner); got != "inner" {
		t.Errorf("From(inner) = %q, want inner", got)
	}
	if got := reqinfo.From[string](inner); got != "of another type" {
		t.Errorf("From[string](inner) = %q, want the value of that type", got)
	}
	if reqinfo.From[io.Reader](inner) == nil || reqinfo.From[io.Writer](inner) != nil {
		t.Error("From of an interface: want the value set as io.Reader, and none as io.Writer")
	}
}
