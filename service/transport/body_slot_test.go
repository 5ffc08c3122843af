package transport

import (
	"io"
	"net/http"
	"testing"

	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/fair"
)

// readerFunc is a body.
type readerFunc func() int

func (f readerFunc) Read([]byte) (int, error) { return f(), io.EOF }
func (readerFunc) Close() error               { return nil }

// ownBody is a body of service/http2.
type ownBody struct {
	readerFunc

	received bool
}

func (b ownBody) Received() bool { return b.received }

// A body of which reads wait has a timeout, also if its length is 0.
func TestHasBody(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		body   io.ReadCloser
		length int64
		want   bool
	}{
		"none":                        {http.NoBody, 0, false},
		"none of net/http":            {readerFunc(nil), 0, false},
		"with a length":               {readerFunc(nil), 1, true},
		"empty":                       {ownBody{received: true}, 0, false},
		"empty, its end not received": {ownBody{}, 0, true},
	} {
		if got := hasBody(&http.Request{Body: test.body, ContentLength: test.length}); got != test.want {
			t.Errorf("hasBody(%s) = %v, want %v", name, got, test.want)
		}
	}
}

// A read that can wait releases the slot of the request, a read of a received body keeps it unless the request is large.
func TestReadOfReceivedBodyKeepsSlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		received bool
		own      bool  // the body is of service/http2
		length   int64 // of the body, -1: unknown
		message  int64 // bytes reserved for a message
		want     int   // slots held during the read
	}{
		"received":                        {true, true, -1, 0, 1},
		"not received":                    {false, true, -1, 0, 0},
		"with a length":                   {false, false, 4, 0, 0},
		"with a small message":            {true, true, -1, smallBytes, 1},
		"with a large message":            {true, true, -1, 1 << 20, 0},
		"read to its length":              {false, false, 0, 0, 1},
		"read to its length, end to come": {false, true, 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			scheduler := fair.NewScheduler()
			x, held := new(Exchange), -1
			memory := budget.New(budget.Options{Limit: 64 << 20, InUse: func() (int64, int64) { return 0, 0 }})
			x.memory.Open(memory, nil, budget.Known, "a")
			if err := x.memory.Grow(budget.Message, test.message); err != nil {
				t.Fatal(err)
			}
			x.slot.Open(scheduler, "a")
			x.slot.Acquire()
			read := readerFunc(func() int {
				held, _, _ = scheduler.Stats()
				return 0
			})
			b := &limitedBody{ReadCloser: read, exchange: x, request: &http.Request{ContentLength: test.length}, opts: new(GuardOptions)}
			if test.own {
				b.ReadCloser = ownBody{read, test.received}
			}
			if _, err := b.readBody(make([]byte, 8)); err != io.EOF { //nolint:errorlint // documented as a sentinel
				t.Fatalf("readBody() = %v, want io.EOF", err)
			}
			if held != test.want {
				t.Errorf("got %d slots held during the read, want %d", held, test.want)
			}
			if held, _, _ := scheduler.Stats(); held != 1 {
				t.Errorf("got %d slots held after the read, want 1", held)
			}
		})
	}
}
