package intercept

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/reqinfo"
)

// recordingConn is a stream that records that a message was received.
type recordingConn struct {
	connect.StreamingHandlerConn

	received bool
	header   http.Header
	kind     connect.StreamType
}

func (c *recordingConn) Spec() connect.Spec { return connect.Spec{StreamType: c.kind} }

func (c *recordingConn) ResponseHeader() http.Header { return c.header }

func (*recordingConn) Send(any) error { return nil }

func (c *recordingConn) Receive(any) error {
	c.received = true
	return nil
}

// waitingSlot returns the slot of a caller, while others hold all slots until endOthers is called.
func waitingSlot() (slot *fair.Slot, endOthers func()) {
	scheduler := fair.NewScheduler()
	others := make([]fair.Slot, fair.Processors())
	for i := range others {
		others[i].Open(scheduler, fmt.Sprint("other", i))
		others[i].Acquire()
	}
	slot = new(fair.Slot)
	slot.Open(scheduler, "caller")
	return slot, func() {
		for i := range others {
			others[i].Close()
		}
	}
}

// A message of more than turnBytes is decoded and validated in a slot, a small one without.
func TestStreamsReceiveLargeMessagesInASlot(t *testing.T) {
	for _, test := range []struct {
		bytes int
		waits bool
	}{{turnBytes - messageBytes, false}, {turnBytes - messageBytes + 1, true}} {
		synctest.Test(t, func(t *testing.T) {
			slot, endOthers := waitingSlot()
			defer slot.Close()
			messages := codec.NewMessages(codec.MessageOptions{
				DecodedSize: func(protoreflect.MessageDescriptor, bool, []byte) int64 { return 0 },
			})
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", strings.NewReader(strings.Repeat("a", test.bytes)))
			in := messages.Receive(r) // without the slot, which Fetch would acquire
			in.Open(nil, 1<<20)
			conn := new(recordingConn)
			turns := &streamTurns{StreamingHandlerConn: conn, slot: slot, in: in}
			go func() { _ = turns.Receive(nil) }()
			synctest.Wait()
			if got, want := conn.received, !test.waits; got != want {
				t.Errorf("%d bytes: received without a slot = %t, want %t", test.bytes, got, want)
			}
			endOthers()
			synctest.Wait()
			if !conn.received {
				t.Errorf("%d bytes: not received after a slot became free", test.bytes)
			}
			if slot.Release() {
				t.Errorf("%d bytes: the slot is held after Receive", test.bytes)
			}
		})
	}
}

// fetched are messages of a length.
type fetched int

func (fetched) Fetch() {}

// Fetched returns the length.
func (f fetched) Fetched() int { return int(f) }

// Empty messages take turns too.
func TestStreamsReceiveEmptyMessagesInTurns(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		slot, endOthers := waitingSlot()
		defer slot.Close()
		const messages = 100
		received := 0
		go func() {
			turns := &streamTurns{StreamingHandlerConn: new(recordingConn), slot: slot, in: fetched(0)}
			for range messages {
				_ = turns.Receive(nil)
				received++
			}
		}()
		synctest.Wait()
		if received >= messages {
			t.Errorf("%d empty messages were received without a slot, want fewer than %d", received, messages)
		}
		endOthers()
		synctest.Wait()
		if received != messages {
			t.Errorf("%d messages were received after a slot became free, want %d", received, messages)
		}
	})
}

// compressed is a response of which compression leaves nothing.
type compressed struct{ Response }

func (compressed) Written() int64 { return 0 }

func (compressed) IsDirect() bool { return false }

// The turns of a compressed stream are counted before compression.
func TestStreamsSendCompressedMessagesInTurns(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"Grpc-Encoding", "Connect-Content-Encoding"} {
		synctest.Test(t, func(t *testing.T) {
			slot, endOthers := waitingSlot()
			defer slot.Close()
			ctx := reqinfo.With[Response](fair.NewContext(t.Context(), slot), compressed{})
			turns := Turns{}.newStream(ctx, &recordingConn{header: http.Header{name: {"gzip"}}})
			sent := 0
			go func() {
				for range 3 {
					_ = turns.Send(wrapperspb.String(strings.Repeat("a", turnBytes/2-10)))
					sent++
				}
			}()
			synctest.Wait()
			if sent != 2 {
				t.Errorf("%s: %d messages were sent without a slot, want 2", name, sent)
			}
			endOthers()
			synctest.Wait()
			if sent != 3 {
				t.Errorf("%s: %d messages were sent after a slot became free, want 3", name, sent)
			}
		})
	}
}

// clientStream is a client stream.
type clientStream struct{ recordingConn }

func (*clientStream) Spec() connect.Spec { return connect.Spec{StreamType: connect.StreamTypeClient} }

// The handler of a client stream runs in the slot, and knows it, so that what waits can release it.
func TestClientStreamsKeepTheirSlot(t *testing.T) {
	t.Parallel()
	scheduler := fair.NewScheduler()
	var slot fair.Slot
	slot.Open(scheduler, "caller")
	defer slot.Close()
	ctx := reqinfo.With[Messages](fair.NewContext(t.Context(), &slot), fetched(turnBytes))
	handler := Turns{}.WrapStreamingHandler(func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		for range 3 {
			if err := conn.Receive(nil); err != nil {
				return err
			}
			if !fair.FromContext(ctx).Release() {
				t.Error("Release = false after Receive, want the slot of the stream")
			}
		}
		return nil
	})
	if err := handler(ctx, new(clientStream)); err != nil {
		t.Fatal(err)
	}
}
