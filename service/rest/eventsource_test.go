package rest_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"
)

// sseEvent is an event that an EventSource dispatches.
type sseEvent struct{ name, data, id string }

// sseStream is a stream parsed by the rules of the HTML standard, "Interpreting an event stream".
// Input that the standard ignores is an error.
type sseStream struct {
	events   []sseEvent
	lastID   string // value of Last-Event-ID on a reconnect
	retry    []int  // milliseconds
	comments int
}

func parseEvents(text string) (*sseStream, error) {
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("not UTF-8")
	}
	s := &sseStream{}
	text = strings.TrimPrefix(text, "\uFEFF")
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	lines := strings.Split(text, "\n")
	if lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("the last line %q is not terminated", lines[len(lines)-1])
	}
	lines = lines[:len(lines)-1]
	if len(lines) > 0 && lines[len(lines)-1] != "" {
		return nil, fmt.Errorf("the last block %q is not terminated", lines[len(lines)-1])
	}
	var data, name, id string
	id = s.lastID
	for _, line := range lines {
		if line == "" {
			s.lastID = id
			if data != "" {
				if name == "" {
					name = "message"
				}
				s.events = append(s.events, sseEvent{name: name, data: strings.TrimSuffix(data, "\n"), id: id})
			}
			data, name = "", ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "":
			s.comments++
		case "event":
			name = value
		case "data":
			data += value + "\n"
		case "id":
			if strings.ContainsRune(value, 0) {
				return nil, fmt.Errorf("id contains NUL")
			}
			id = value
		case "retry":
			n, err := strconv.ParseUint(value, 10, 31)
			if err != nil {
				return nil, fmt.Errorf("retry: %w", err)
			}
			s.retry = append(s.retry, int(n))
		default:
			return nil, fmt.Errorf("unknown field %q", field)
		}
	}
	return s, nil
}

func TestParseEvents(t *testing.T) {
	s, err := parseEvents("\uFEFFretry: 10\n\n: note\n\nid: 1\ndata: a\ndata: b\n\nid: 2\n\nevent: x\r\ndata:c\r\n\r\nid\ndata\n\n")
	if err != nil {
		t.Fatal(err)
	}
	want := "[{message a\nb 1} {x c 2} {message  }]"
	if got := fmt.Sprint(s.events); got != want || s.comments != 1 || len(s.retry) != 1 || s.lastID != "" {
		t.Errorf("got %s, %+v", got, s)
	}
	for _, bad := range []string{"data: a\n", "data: a", "dta: a\n\n", "retry: x\n\n", "\xff\n\n", "id: \x00\n\n"} {
		if _, err := parseEvents(bad); err == nil {
			t.Errorf("parseEvents(%q) = nil error, want error", bad)
		}
	}
}
