package server

import (
	"net/http"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/yourorg/userservice/service/bounds"
	"github.com/yourorg/userservice/service/budget"
	"github.com/yourorg/userservice/service/codec"
	"github.com/yourorg/userservice/service/intercept"
	"github.com/yourorg/userservice/service/user"
)

const (
	// decodedFactor bounds the memory of a decoded message, as a multiple of --max-message-bytes.
	decodedFactor = 8
	// minMaxDecoded is the minimum of this bound. Every valid message is smaller.
	minMaxDecoded = 32 << 20
)

// newMessages returns the reader of request messages.
func (s *Server) newMessages() *codec.Messages {
	limit := max(decodedFactor*int64(s.cfg.MaxMessageBytes), minMaxDecoded)
	if share := s.limits.Memory().CallerShare(budget.Known); share > 0 {
		// A message that can never be reserved is rejected as too complex: OVERLOADED would make
		// the client retry.
		limit = min(limit, share)
	}
	return codec.NewMessages(codec.MessageOptions{
		TooLarge: s.newTooLargeErrorFor,
		TooComplex: func(limit int64) error {
			s.metrics.RequestRejected(string(user.MessageTooLarge))
			return intercept.NewTooComplexError(limit)
		},
		Overloaded: s.limits.Overloaded,
		NoMemory:   func(w http.ResponseWriter, r *http.Request) { s.limits.Refuse(w, r, user.NewOverloadedError()) },
		MaxDecoded: limit,
		DecodedSize: func(message protoreflect.MessageDescriptor, json bool, data []byte) int64 {
			if json {
				return bounds.JSON(data)
			}
			return bounds.Binary(message, data, limit)
		},
	})
}
