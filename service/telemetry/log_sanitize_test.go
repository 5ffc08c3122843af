package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"unicode"

	"go.opentelemetry.io/otel/trace"

	"github.com/yourorg/userservice/service/telemetry"
)

// bothForms runs a test with a logger of each format. line returns the output since the last
// call, which must be one line of printable characters.
func bothForms(t *testing.T, run func(t *testing.T, log *slog.Logger, line func() string)) {
	t.Helper()
	for _, format := range []string{telemetry.FormatText, telemetry.FormatJSON} {
		t.Run(format, func(t *testing.T) {
			var out bytes.Buffer
			log, err := telemetry.NewLogger(&out, "debug", format)
			if err != nil {
				t.Fatal(err)
			}
			run(t, slog.New(telemetry.Sanitize(log.Handler())), func() string {
				written := out.String()
				out.Reset()
				text, whole := strings.CutSuffix(written, "\n")
				if !whole {
					t.Errorf("output = %q, want one line", written)
				}
				for _, r := range text {
					if !unicode.IsPrint(r) {
						t.Errorf("line contains %U: %q", r, text)
					}
				}
				if format == telemetry.FormatJSON && !json.Valid([]byte(text)) {
					t.Errorf("not JSON: %s", text)
				}
				return text
			})
		})
	}
}

// hostile are strings that a caller may send.
var hostile = map[string]string{
	"newline":          "bob\nlevel=INFO msg=\"call\" code=ok caller=admin",
	"carriage return":  "bob\r\x1b[2Klevel=INFO msg=granted",
	"colour":           "bob\x1b[31;1mred\x1b[0m",
	"one-byte escape":  "bob\u009b31m",
	"title":            "bob\x1b]0;owned\x07",
	"backspace":        "bob\b\b\badmin",
	"right to left":    "bob\u202egnp.exe",
	"line separator":   "bob\u2028forged\u2029line\u0085next",
	"invisible":        "bob\u200b\ufeff\u2060",
	"quotes":           `bob" caller="admin" x="` + `","caller":"admin`,
	"not UTF-8":        "bob\xff\xfe\x9b31m",
	"null":             "bob\x00",
	"tab and vertical": "bob\t\v\f",
}

func TestValuesCannotForgeALine(t *testing.T) {
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		for name, text := range hostile {
			for where, write := range map[string]func(){
				"username":   func() { log.Info("call", slog.String("username", text)) },
				"user agent": func() { log.Info("call", slog.Group("request", slog.String("user_agent", text))) },
				"request id": func() { log.With("request_id", text).Info("call") },
				"error":      func() { log.Info("call", slog.Any("error", errors.New(text))) },
				"stringer":   func() { log.Info("call", slog.Any("url", &url.URL{Host: text})) },
				"valuer":     func() { log.Info("call", slog.Any("who", valuer(text))) },
				"message":    func() { log.Info(text) },
				"key":        func() { log.Info("call", slog.String(text, "value")) },
				"group":      func() { log.WithGroup(text).Info("call", "a", 1) },
				"stack":      func() { log.Info("call", slog.String("stack", text)) },
			} {
				write()
				if got := line(); strings.Count(got, "\n") != 0 {
					t.Errorf("%s as %s: more than one line: %q", name, where, got)
				}
			}
		}
	})
}

type valuer string

func (v valuer) LogValue() slog.Value { return slog.StringValue(string(v)) }

func TestEscapedTextStaysReadable(t *testing.T) {
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		for text, want := range map[string]string{
			"Zoë Müller": "Zoë Müller", "日本語": "日本語", "🙂": "🙂", "": "",
			"a\nb": `\n`, "\x1b[1m": `\x1b`, "\u202e": `\u202e`,
		} {
			log.Info("call", slog.String("username", text))
			if got := line(); !strings.Contains(got, want) {
				t.Errorf("log of %q = %s, want it to contain %s", text, got, want)
			}
		}
	})
}

func TestTokensAreRedacted(t *testing.T) {
	const jwt = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXRoYXQtaXMtc2VjcmV0"
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		for _, text := range []string{
			jwt, "Bearer " + jwt, "bearer c2VjcmV0LXRoYXQ", "Authorization: Basic dXNlcjpwYXNzd29yZA==", "parse \"" + jwt + "\": bad",
			strings.TrimSuffix(jwt, ".c2lnbmF0dXJlLXRoYXQtaXMtc2VjcmV0"),
		} {
			log.Info("refused "+text, slog.String("header", text), slog.Any("error", errors.New(text)))
			got := line()
			for _, secret := range []string{"c2VjcmV0", "dXNlcjpw", "c2lnbmF0", "eyJzdWIi"} {
				if strings.Contains(got, secret) {
					t.Errorf("log of %s = %s", text, got)
				}
			}
			if strings.Count(got, "[redacted]") != 3 {
				t.Errorf("log of %s = %s", text, got)
			}
		}
		log.Info("a basic rule; the bearer of news", "kind", "basic")
		if got := line(); strings.Contains(got, "redacted") {
			t.Errorf("log = %s", got)
		}
	})
}

// pair is a value that slog formats with package fmt.
type pair struct {
	Name  string
	Count int
}

func TestValuesOfAnyTypeAreSanitized(t *testing.T) {
	const hostile = "a\nlevel=ERROR msg=forged\x1b[2J Bearer c2VjcmV0LXRoYXQ"
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		for name, value := range map[string]any{
			"slice": []string{hostile}, "map": map[string]string{hostile: hostile}, "struct": pair{Name: hostile},
			"pointer": &pair{Name: hostile}, "bytes": []byte(hostile), "nested": [][]any{{hostile}},
		} {
			log.Info("call", slog.Any("value", value))
			got := line()
			if strings.Count(strings.TrimRight(got, "\n"), "\n") != 0 || strings.ContainsAny(got, "\x1b") || strings.Contains(got, "c2VjcmV0") {
				t.Errorf("log of %s = %q", name, got)
			}
		}
		log.Info("call", slog.Any("value", nil), slog.Int("count", 7), slog.Any("list", []int{1, 2}))
		if got := line(); !strings.Contains(got, "[1 2]") || !strings.Contains(got, "7") {
			t.Errorf("log = %s", got)
		}
	})
}

func TestLongValuesAreTruncated(t *testing.T) {
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		log.Info("call", slog.String("user_agent", strings.Repeat("ü", 1<<20)))
		if got := line(); len(got) > 17<<10 || !strings.Contains(got, "ü…") {
			t.Errorf("line has %d bytes", len(got))
		}
	})
}

func TestLinesHaveTraceIDs(t *testing.T) {
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		ctx := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID{0xab, 1}, SpanID: trace.SpanID{0xcd, 2},
		}))
		log.InfoContext(ctx, "call")
		if got := line(); !strings.Contains(got, "ab010000000000000000000000000000") || !strings.Contains(got, "cd02000000000000") {
			t.Errorf("log = %s", got)
		}
		log.InfoContext(t.Context(), "call")
		if got := line(); strings.Contains(got, "trace_id") {
			t.Errorf("log without a trace = %s", got)
		}
	})
}

func TestStackKeepsItsLines(t *testing.T) {
	var out bytes.Buffer
	log := slog.New(telemetry.Sanitize(slog.NewJSONHandler(&out, nil)))
	log.Error("oh", "stack", "main.f()\n\tmain.go:1\x1b[1m")
	if !strings.Contains(out.String(), `"stack":"main.f()\n\tmain.go:1\\x1b[1m"`) {
		t.Errorf("log = %s", &out)
	}
}

func TestNilPointersAreLogged(t *testing.T) {
	bothForms(t, func(t *testing.T, log *slog.Logger, line func() string) {
		log.Info("call", slog.Any("error", (*failure)(nil)), slog.Any("url", (*url.URL)(nil)), slog.Any("nothing", nil))
		if got := line(); !strings.Contains(got, "call") {
			t.Errorf("log = %s", got)
		}
	})
}

type failure struct{ text string }

func (f *failure) Error() string { return f.text }

func BenchmarkPlain(b *testing.B) {
	ctx := context.Background()
	attrs := []slog.Attr{
		slog.String("procedure", "/user.v1.UserService/GetUser"), slog.String("protocol", "grpc"), slog.String("code", "ok"),
		slog.Duration("duration", 123456), slog.String("peer", "192.0.2.1:50000"), slog.String("caller", "alice@example.com"),
	}
	next := slog.NewJSONHandler(new(nowhere), nil)
	for name, handler := range map[string]slog.Handler{"without": next, "with": telemetry.Sanitize(next)} {
		log := slog.New(handler)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				log.LogAttrs(ctx, slog.LevelInfo, "call", attrs...)
			}
		})
	}
}

type nowhere struct{}

func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
