package service

import (
	"crypto/rand"

	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/yourorg/userservice/service/rpcstatus"
)

// itemStatus converts the error of an item. It logs an unexpected error with the incident id
// that the client receives.
func (s *Service) itemStatus(err error) *status.Status {
	if st, known := rpcstatus.From(err); known {
		return st
	}
	incident := rand.Text()
	s.log.Error("unexpected item error", "incident", incident, "error", err)
	return rpcstatus.Internal(incident)
}
