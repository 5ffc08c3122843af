package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.opentelemetry.io/otel/trace"

	"github.com/yourorg/userservice/service/reqinfo"
)

// maxValueBytes is the maximum length of a logged string in bytes. Stack traces fit.
const maxValueBytes = 16 << 10

// tokens matches JSON Web Tokens, with or without signature, and the credentials of an
// Authorization header.
var tokens = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?|(?i:\b(?:bearer|basic)) +[A-Za-z0-9._~+/=-]{8,}`)

const redacted = "[redacted]"

type sanitizer struct{ next slog.Handler }

// Sanitize returns a handler that adds trace_id and span_id from the context and sanitizes
// messages, keys and values: control characters, line breaks and bidirectional formatting
// characters are escaped, tokens are redacted, and long strings are truncated. A value cannot
// forge a line or change the terminal. The attribute "stack" keeps line breaks and tabs.
//
// Numbers, times and booleans are unchanged. Other values are formatted with package fmt and
// sanitized. For the trace of the caller see WithCaller.
func Sanitize(next slog.Handler) slog.Handler { return sanitizer{next} }

// Enabled implements slog.Handler.
func (h sanitizer) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs sanitizes the attributes once.
func (h sanitizer) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sanitizer{h.next.WithAttrs(sanitizeAttrs(attrs))}
}

// WithGroup opens a group, which then also contains the trace ids.
func (h sanitizer) WithGroup(name string) slog.Handler {
	return sanitizer{h.next.WithGroup(sanitizeText(name))}
}

// Handle sanitizes a record.
func (h sanitizer) Handle(ctx context.Context, r slog.Record) error {
	plain := slog.NewRecord(r.Time, r.Level, sanitizeText(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		plain.AddAttrs(sanitizeAttr(a))
		return true
	})
	span := trace.SpanContextFromContext(ctx)
	caller := reqinfo.From[*CallerTrace](ctx)
	if span.IsValid() {
		plain.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	} else if caller != nil && caller.trusted {
		plain.AddAttrs(slog.String("trace_id", caller.id))
	}
	if caller != nil && !caller.trusted {
		plain.AddAttrs(slog.String("caller_trace_id", caller.id))
	}
	return h.next.Handle(ctx, plain)
}

func sanitizeAttrs(attrs []slog.Attr) []slog.Attr {
	plain := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		plain[i] = sanitizeAttr(a)
	}
	return plain
}

func sanitizeAttr(a slog.Attr) slog.Attr {
	value := a.Value.Resolve()
	a.Key = sanitizeText(a.Key)
	switch value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(sanitizeValue(a.Key, value.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(sanitizeAttrs(value.Group())...)
	case slog.KindAny:
		if v := value.Any(); v != nil {
			value = slog.StringValue(sanitizeText(fmt.Sprint(v)))
		}
		a.Value = value
	default:
		a.Value = value
	}
	return a
}

func sanitizeValue(key, text string) string {
	if key != "stack" {
		return sanitizeText(text)
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, "\t"))
		lines[i] = line[:indent] + sanitizeText(line[indent:])
	}
	return strings.Join(lines, "\n")
}

// sanitizeText sanitizes a string. Most strings are returned unchanged without allocation.
func sanitizeText(text string) string {
	if len(text) > maxValueBytes {
		text = strings.ToValidUTF8(text[:maxValueBytes], "") + "…"
	}
	if mayHoldToken(text) {
		text = tokens.ReplaceAllString(text, redacted)
	}
	for i, r := range text {
		if !printable(r) || r == utf8.RuneError {
			return escape(text, i)
		}
	}
	return text
}

// mayHoldToken is a fast check that avoids the regular expression for most strings.
func mayHoldToken(text string) bool {
	if strings.Contains(text, "eyJ") {
		return true
	}
	for i := range len(text) - 5 {
		if c := text[i] | 0x20; c == 'b' && (strings.EqualFold(text[i:i+5], "basic") || strings.EqualFold(text[i:i+5], "beare")) {
			return true
		}
	}
	return false
}

// printable reports whether r is printable. unicode.IsPrint is false for control and format
// characters, and for all spaces and line breaks except the ASCII space.
func printable(r rune) bool { return r < utf8.RuneSelf && r >= ' ' && r != 0x7f || unicode.IsPrint(r) }

func escape(text string, from int) string {
	var b strings.Builder
	b.WriteString(text[:from])
	for rest := text[from:]; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(rest[0]), 16))
		case printable(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		rest = rest[size:]
	}
	return b.String()
}
