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

// receivedBody is a body that has been received whole.
type receivedBody struct{ readerFunc }

func (receivedBody) Received() bool { return true }

// A read that can wait releases the slot of the request, a read of a received body keeps it unless the request is large.
func TestReadOfReceivedBodyKeepsSlot(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		received bool
		length   int64 // of the body, -1: unknown
		message  int64 // bytes reserved for a message
		want     int   // slots held during the read
	}{
		"received":             {true, -1, 0, 1},
		"not received":         {false, -1, 0, 0},
		"with a length":        {false, 4, 0, 0},
		"with a small message": {true, -1, smallBytes, 1},
		"with a large message": {true, -1, 1 << 20, 0},
		"read to its length":   {false, 0, 0, 1},
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
			if test.received {
				b.ReadCloser = receivedBody{read}
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
