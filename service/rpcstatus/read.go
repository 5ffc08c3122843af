package rpcstatus

import (
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/yourorg/userservice/service/user"
)

// Detail returns the first detail of the type, nil if there is none.
func Detail[T proto.Message](s *status.Status) T {
	var none T
	for _, packed := range s.GetDetails() {
		if message, err := packed.UnmarshalNew(); err == nil {
			if found, ok := message.(T); ok {
				return found
			}
		}
	}
	return none
}

// Reason returns the reason of the status, "" if it has none.
func Reason(s *status.Status) user.Reason {
	return user.Reason(Detail[*errdetails.ErrorInfo](s).GetReason())
}

// JSON encodes a status. If a detail has an unknown type, all details are omitted.
func JSON(s *status.Status) []byte {
	text, err := protojson.Marshal(s)
	if err != nil {
		text, _ = protojson.Marshal(&status.Status{Code: s.GetCode(), Message: s.GetMessage()})
	}
	return text
}
