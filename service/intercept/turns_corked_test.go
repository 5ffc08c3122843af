package intercept

import (
	"testing"

	"connectrpc.com/connect"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/fair"
	"github.com/yourorg/userservice/service/reqinfo"
)

// corked is a flush control that is always in one state.
type corked bool

func (corked) Cork()            {}
func (corked) Uncork()          {}
func (c corked) IsCorked() bool { return bool(c) }

// A server stream with more to send keeps the slot after a turn. Others release it: they may wait next.
func TestCorkedStreamsKeepTheirSlot(t *testing.T) {
	for kind, keeps := range map[connect.StreamType]bool{connect.StreamTypeServer: true, connect.StreamTypeBidi: false} {
		for _, control := range []corked{true, false} {
			scheduler := fair.NewScheduler()
			var slot fair.Slot
			slot.Open(scheduler, "caller")
			ctx := reqinfo.With[Response](fair.NewContext(t.Context(), &slot), compressed{})
			conn := &recordingConn{header: map[string][]string{"Grpc-Encoding": {"gzip"}}, kind: kind}
			turns := Turns{}.newStream(reqinfo.With[reqinfo.FlushControl](ctx, control), conn)
			if err := turns.Send(&userv1.User{Username: string(make([]byte, 2*turnBytes))}); err != nil {
				t.Fatal(err)
			}
			held, _, _ := scheduler.Stats()
			if want := keeps && bool(control); (held == 1) != want {
				t.Errorf("%v, corked %t: %d slots held after a turn, want held: %t", kind, control, held, want)
			}
			slot.Close()
		}
	}
}
