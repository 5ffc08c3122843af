package service

import (
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	userv1 "github.com/yourorg/userservice/gen/user/v1"
	"github.com/yourorg/userservice/service/feed"
	"github.com/yourorg/userservice/service/reqinfo"
)

// sharedStatus is a status change that is sent to all its subscribers. Each codec encodes it once: it implements
// codec.Shared. It must not be modified.
type sharedStatus struct {
	*userv1.UserStatusUpdate

	change    feed.StatusChange
	mu        sync.Mutex
	encodings map[string][]byte // by codec
	frames    []sharedFrame     // at most maxFrames
}

// sharedFrame is what is written for a message to streams of a form.
type sharedFrame struct {
	form    reqinfo.Form
	data    []byte
	counter interface{ Inc() } // of sent messages; nil: none
}

// maxFrames bounds the forms of a message, since clients choose them.
const maxFrames = 8

// sharedStatusChange returns the message for a change. Subscribers are sent the same change one after the other, so the last
// one is kept.
func (s *Service) sharedStatusChange(change *feed.StatusChange) *sharedStatus {
	last := s.lastStatus.Load()
	if last == nil || change.Position == 0 || !last.change.Same(change) {
		last = &sharedStatus{UserStatusUpdate: s.statusChange(change), change: *change, encodings: make(map[string][]byte, 1)}
		s.lastStatus.Store(last)
	}
	return last
}

// Encoding returns the encoding of a codec, which encode makes if there is none.
func (m *sharedStatus) Encoding(codec string, encode func(proto.Message) ([]byte, error)) (data []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.encodings[codec]
	if !ok {
		if data, err = encode(m.UserStatusUpdate); err == nil {
			m.encodings[codec] = data
		}
	}
	return data, err
}

// frame returns what is written for the message to a stream of the form, if it is known.
func (m *sharedStatus) frame(form reqinfo.Form) (frame sharedFrame, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range m.frames {
		if m.frames[i].form == form {
			return m.frames[i], true
		}
	}
	return frame, false
}

// setFrame records what was written to a stream. data is copied.
func (m *sharedStatus) setFrame(sends *reqinfo.SharedSends, data []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if sends.Form != reqinfo.NoForm && len(m.frames) < maxFrames {
		m.frames = append(m.frames, sharedFrame{sends.Form, slices.Clone(data), sends.Counter})
	}
}
