package service

import (
	"crypto/rand"

	"google.golang.org/genproto/googleapis/rpc/status"

	"github.com/yourorg/userservice/service/rpcstatus"
)

// itemStatus gives the failure of one item as its caller may see it. What was not
// expected goes into the log, under the incident that the caller is told.
func (s *Service) itemStatus(err error) *status.Status {
	if st, known := rpcstatus.From(err); known {
		return st
	}
	incident := rand.Text()
	s.log.Error("unexpected failure of an item", "incident", incident, "error", err)
	return rpcstatus.Internal(incident)
}
