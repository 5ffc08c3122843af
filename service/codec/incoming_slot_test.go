package codec

import (
	"bytes"
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/fair"
)

// A message that is large or compressed is decompressed and measured in a slot of its caller.
func TestMessagesAreMeasuredInASlot(t *testing.T) {
	large := bytes.Repeat([]byte("a"), smallBytes+1)
	for _, w := range ways() {
		message := large
		if w.gzip {
			message = []byte("a") // the decompressed size is unknown
		}
		t.Run(fmt.Sprintf("%+v", w), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				scheduler := fair.NewScheduler()
				release := occupy(scheduler)
				var slot fair.Slot
				slot.Open(scheduler, "caller")
				defer slot.Close()
				measured := false
				m := testMessages()
				size := m.opts.DecodedSize
				m.opts.DecodedSize = func(d protoreflect.MessageDescriptor, json bool, data []byte) int64 {
					measured = true
					return size(d, json, data)
				}
				r := w.request(t, message)
				in := m.Receive(r.WithContext(fair.NewContext(r.Context(), &slot)))
				in.Open(nil, 1<<20)
				go in.Fetch()
				synctest.Wait()
				if measured {
					t.Error("the message is measured without a slot")
				}
				release()
				synctest.Wait()
				if !measured {
					t.Error("the message is not measured after a slot became free")
				}
			})
		})
	}
}

// occupy acquires all slots for other callers.
func occupy(scheduler *fair.Scheduler) (release func()) {
	slots := make([]fair.Slot, fair.Processors())
	for i := range slots {
		slots[i].Open(scheduler, fmt.Sprint("other", i))
		slots[i].Acquire()
	}
	return func() {
		for i := range slots {
			slots[i].Close()
		}
	}
}
