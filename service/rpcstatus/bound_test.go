package rpcstatus_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"pgregory.net/rapid"

	"github.com/yourorg/userservice/service/rpcstatus"
	"github.com/yourorg/userservice/service/user"
)

const sixKiB = 6 << 10

// wireSizes returns the encoded sizes of message and details per protocol. Those of gRPC and
// Connect are measured in a response of package connect.
func wireSizes(t interface {
	Fatal(args ...any)
	Context() context.Context
}, s *status.Status) map[string]int {
	failure := connect.NewError(connect.Code(s.GetCode()), fmt.Errorf("%s", s.GetMessage()))
	for _, packed := range s.GetDetails() {
		detail, err := connect.NewErrorDetail(packed)
		if err != nil {
			t.Fatal(err)
		}
		failure.AddDetail(detail)
	}
	sizes := map[string]int{}
	for name, contentType := range map[string]string{"gRPC": "application/grpc", "Connect": "application/json"} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", http.NoBody)
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		if err := connect.NewErrorWriter().Write(w, r, failure); err != nil {
			t.Fatal(err)
		}
		res := w.Result()
		sizes[name] = w.Body.Len()
		for _, header := range []http.Header{res.Header, res.Trailer} {
			sizes[name] += len(header.Get("Grpc-Message")) + len(header.Get("Grpc-Status-Details-Bin"))
		}
		_ = res.Body.Close()
	}
	body, err := protojson.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	sizes["REST"] = len(body)
	return sizes
}

// hostileText draws texts that grow when encoded, or are not valid UTF-8.
func hostileText(t *rapid.T, label string, most int) string {
	piece := rapid.SampledFrom([]string{"a", `"`, "<", "\x01", "%", "é", "\u2028", "\U0001F600", "\xff", " "}).Draw(t, label)
	return strings.Repeat(piece, rapid.IntRange(0, most).Draw(t, label+" length"))
}

func TestStatusIsBelowSixKiBInEveryProtocol(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		e := &user.Error{Code: user.InvalidArgument, Reason: user.InvalidField, Message: hostileText(t, "message", 10_000), RetryAfter: time.Second}
		for i := range rapid.IntRange(0, 4).Draw(t, "metadata") {
			if e.Metadata == nil {
				e.Metadata = map[string]string{}
			}
			e.Metadata[fmt.Sprint("key", i)] = hostileText(t, "value", 5_000)
		}
		for range rapid.SampledFrom([]int{0, 1, 2, 12, 24, 100, 10_000}).Draw(t, "violations") {
			e.Violations = append(e.Violations, user.Violation{Field: "tags[1]", Message: "must be 1 to 64 characters", Rule: "string.max_len"})
		}
		for i := range min(len(e.Violations), rapid.IntRange(0, 5).Draw(t, "hostile")) {
			e.Violations[i] = user.Violation{
				Field: hostileText(t, "field", 2_000), Message: hostileText(t, "description", 2_000), Rule: hostileText(t, "rule", 200),
			}
		}
		s, known := rpcstatus.From(e)
		if !known || s.GetCode() != int32(user.InvalidArgument) {
			t.Fatalf("From(%v) = %v, %v", e, s, known)
		}
		for protocol, size := range wireSizes(t, s) {
			if size >= sixKiB {
				t.Fatalf("%s: encoded size = %d, want less than %d", protocol, size, sixKiB)
			}
		}
		checkOmitted(t, s, len(e.Violations))
	})
}

// checkOmitted checks that the included and omitted violations add up to all.
func checkOmitted(t *rapid.T, s *status.Status, all int) {
	shown, omitted := 0, 0
	for _, packed := range s.GetDetails() {
		value, err := packed.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch d := value.(type) {
		case *errdetails.BadRequest:
			shown = len(d.GetFieldViolations())
		case *errdetails.ErrorInfo:
			if d.GetReason() != string(user.InvalidField) {
				t.Fatalf("ErrorInfo reason = %q", d.GetReason())
			}
			if text, ok := d.GetMetadata()[rpcstatus.OmittedViolations]; ok {
				if omitted, err = strconv.Atoi(text); err != nil || omitted == 0 {
					t.Fatalf("%s = %q", rpcstatus.OmittedViolations, text)
				}
			}
		}
	}
	if shown+omitted != all || all > 0 && shown == 0 {
		t.Fatalf("%d violations included and %d omitted, want %d in total and at least one included", shown, omitted, all)
	}
}

// Twelve bad tags and twelve bad metadata entries are a realistic worst case of a form.
func TestOrdinaryViolationsAreIncluded(t *testing.T) {
	t.Parallel()
	var violations []user.Violation
	for i := range 12 {
		violations = append(violations, user.Violation{Field: fmt.Sprintf("tags[%d]", i), Message: "must be at most 64 characters", Rule: "string.max_len"})
	}
	for i := range 12 {
		violations = append(violations, user.Violation{Field: fmt.Sprintf(`metadata["key%d"]`, i), Message: "must be at most 1024 bytes", Rule: "string.max_bytes"})
	}
	s, _ := rpcstatus.From(user.NewInvalidError(violations...))
	if got := len(detail[*errdetails.BadRequest](t, s).GetFieldViolations()); got < 20 {
		t.Errorf("%d of 24 violations included, want at least 20", got)
	}
	if !strings.HasSuffix(s.GetMessage(), " more") {
		t.Errorf("message = %q, want the number of the omitted violations at its end", s.GetMessage())
	}
}

func TestTruncate(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		text  string
		limit int
		want  string
	}{
		{"abc", 3, "abc"}, {"abcd", 3, "…"}, {"abcdef", 5, "ab…"}, {"éééé", 6, "é…"}, {"a\xffb", 9, "a\uFFFDb"}, {"", 0, ""},
		{"a\xffb", 3, "…"},
	} {
		if got := rpcstatus.Truncate(test.text, test.limit); got != test.want {
			t.Errorf("Truncate(%q, %d) = %q, want %q", test.text, test.limit, got, test.want)
		}
	}
	if got := rpcstatus.Truncate(strings.Repeat("\xff", 100), 20); !utf8.ValidString(got) {
		t.Errorf("Truncate() = %q, want valid UTF-8", got)
	}
}

func BenchmarkFromManyViolations(b *testing.B) {
	violations := make([]user.Violation, 10_000)
	for i := range violations {
		violations[i] = user.Violation{Field: fmt.Sprintf("user_ids[%d]", i), Message: "must be greater than 0", Rule: "int64.gt"}
	}
	err := user.NewInvalidError(violations...)
	for b.Loop() {
		rpcstatus.From(err)
	}
}
