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
)

// longestValue bounds a text in a line, in bytes. Stacks, which are the service's
// own, fit.
const longestValue = 16 << 10

// tokens finds what may be a credential: a JSON Web Token, whole or without its
// signature, and whatever follows the name of a scheme in an Authorization header.
var tokens = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?|(?i:\b(?:bearer|basic)) +[A-Za-z0-9._~+/=-]{8,}`)

const redacted = "[redacted]"

// plainHandler is the last thing that a record passes before it is written.
type plainHandler struct{ next slog.Handler }

// Plain returns a handler whose records carry the ids of the trace in their context,
// as trace_id and span_id, and of the one that the caller names, see WithCaller; and
// whose texts can neither forge a line nor steer the
// terminal it is read on: control characters, line breaks of any script and marks
// that change the direction of writing are written as escapes, what looks like a
// token is replaced, and what is overlong is cut. Line breaks and tabs of a "stack"
// are kept, since package slog itself escapes them and a stack is nobody's input.
//
// Numbers, times and truth values pass as they are. What is none of these is written as
// package fmt does, and made plain like any text.
func Plain(next slog.Handler) slog.Handler { return plainHandler{next} }

// Enabled reports what the next handler does.
func (h plainHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// WithAttrs makes the attributes plain once for all records.
func (h plainHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return plainHandler{h.next.WithAttrs(plainAttrs(attrs))}
}

// WithGroup opens a group. Ids of traces then go into it.
func (h plainHandler) WithGroup(name string) slog.Handler {
	return plainHandler{h.next.WithGroup(plainText(name))}
}

// Handle hands a plain record on.
func (h plainHandler) Handle(ctx context.Context, r slog.Record) error {
	plain := slog.NewRecord(r.Time, r.Level, plainText(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		plain.AddAttrs(plainAttr(a))
		return true
	})
	span := trace.SpanContextFromContext(ctx)
	caller, named := ctx.Value(callerTraceKey{}).(callerTrace)
	if span.IsValid() {
		plain.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	} else if named && caller.trusted {
		plain.AddAttrs(slog.String("trace_id", caller.id))
	}
	if named && !caller.trusted {
		plain.AddAttrs(slog.String("caller_trace_id", caller.id))
	}
	return h.next.Handle(ctx, plain)
}

func plainAttrs(attrs []slog.Attr) []slog.Attr {
	plain := make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		plain[i] = plainAttr(a)
	}
	return plain
}

func plainAttr(a slog.Attr) slog.Attr {
	value := a.Value.Resolve()
	a.Key = plainText(a.Key)
	switch value.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(plainIn(a.Key, value.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(plainAttrs(value.Group())...)
	case slog.KindAny:
		switch v := value.Any().(type) {
		case error:
			a.Value = slog.StringValue(plainText(textOf(v.Error)))
		case fmt.Stringer:
			a.Value = slog.StringValue(plainText(textOf(v.String)))
		case nil:
			a.Value = value
		default:
			a.Value = slog.StringValue(plainText(fmt.Sprint(v)))
		}
	default:
		a.Value = value
	}
	return a
}

// textOf calls a method of a value that may be a nil pointer, as package slog does.
func textOf(method func() string) (text string) {
	defer func() {
		if recover() != nil {
			text = "<nil>"
		}
	}()
	return method()
}

func plainIn(key, text string) string {
	if key != "stack" {
		return plainText(text)
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		indent := len(line) - len(strings.TrimLeft(line, "\t"))
		lines[i] = line[:indent] + plainText(line[indent:])
	}
	return strings.Join(lines, "\n")
}

// plainText is text that can be written anywhere. Most is already, and costs no more
// than to be looked at.
func plainText(text string) string {
	if len(text) > longestValue {
		text = strings.ToValidUTF8(text[:longestValue], "") + "…"
	}
	if mayHoldToken(text) {
		text = tokens.ReplaceAllString(text, redacted)
	}
	for i, r := range text {
		if !harmless(r) || r == utf8.RuneError {
			return escape(text, i)
		}
	}
	return text
}

// mayHoldToken spares most texts the regular expression.
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

// harmless reports whether a character shows as itself. unicode.IsPrint is false for
// control and format characters, those of direction among them, and for all spaces
// and line breaks but the plain space.
func harmless(r rune) bool { return r < utf8.RuneSelf && r >= ' ' && r != 0x7f || unicode.IsPrint(r) }

func escape(text string, from int) string {
	var b strings.Builder
	b.WriteString(text[:from])
	for rest := text[from:]; rest != ""; {
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(rest[0]), 16))
		case harmless(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		rest = rest[size:]
	}
	return b.String()
}
